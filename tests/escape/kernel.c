/* System calls that a box does not have: kernel NAME [ARG]. */
#include "attempt.h"
#include <linux/bpf.h>
#include <linux/io_uring.h>
#include <linux/perf_event.h>
#include <linux/sched.h>
#include <linux/userfaultfd.h>
#include <sys/personality.h>

/* Ends a child made by a clone call at once; the parent reports. */
static int child_end(long pid) {
    if (pid == 0) _exit(0);
    if (pid > 0) waitpid(pid, NULL, __WALL);
    return end(pid);
}

static int in_child(void) { pause(); return 0; }

/* A child that waits to be looked at; any child may be traced by its parent on every host. */
static pid_t victim(void) {
    pid_t pid = fork();
    if (pid == 0) _exit(in_child());
    return pid;
}

int main(int argc, char **argv) {
    unsigned char page[4096] = { 0 };
    struct iovec iov = { page, 8 };
    if (HOW("mount")) return end(mount("none", argv[2], "tmpfs", 0, NULL));
    if (HOW("bind-mount")) return end(mount(argv[2], argv[2], NULL, MS_BIND, NULL));
    if (HOW("remount-rw")) return end(mount(NULL, argv[2], NULL, MS_REMOUNT | MS_BIND, NULL));
    if (HOW("umount")) return end(umount2(argv[2], MNT_DETACH));
    if (HOW("pivot")) return end(RAW(SYS_pivot_root, argv[2], argv[2]));
    if (HOW("chroot")) return end(chroot(argv[2]));
    if (HOW("fsopen")) return end(RAW(SYS_fsopen, "tmpfs", 0));
    if (HOW("open_tree")) return end(RAW(SYS_open_tree, AT_FDCWD, argv[2], 1 /* OPEN_TREE_CLONE */));
    if (HOW("unshare-user")) return end(unshare(CLONE_NEWUSER));
    if (HOW("unshare-mount")) return end(unshare(CLONE_NEWNS));
    if (HOW("unshare-user-mount")) return end(unshare(CLONE_NEWUSER | CLONE_NEWNS));
    if (HOW("clone-user")) return child_end(RAW(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0));
    if (HOW("clone-net")) return child_end(RAW(SYS_clone, CLONE_NEWUSER | CLONE_NEWNET | SIGCHLD, 0, 0, 0, 0));
    if (HOW("clone3")) {
        struct clone_args how = { .exit_signal = SIGCHLD };
        return child_end(RAW(SYS_clone3, &how, sizeof how));
    }
    if (HOW("setns")) {
        int fd = open("/proc/self/ns/uts", O_RDONLY);
        return fd < 0 ? end(-1) : end(setns(fd, CLONE_NEWUTS));
    }
    if (HOW("setns-pidfd")) return end(setns(RAW(SYS_pidfd_open, getpid(), 0), CLONE_NEWUTS));
    if (HOW("ptrace")) {
        pid_t pid = victim();
        int code = end(ptrace(PTRACE_SEIZE, pid, 0, 0));
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        return code;
    }
    if (HOW("traceme")) return end(ptrace(PTRACE_TRACEME, 0, 0, 0));
    if (HOW("vm_writev") || HOW("vm_readv")) {
        pid_t pid = victim();
        long nr = HOW("vm_writev") ? SYS_process_vm_writev : SYS_process_vm_readv;
        int code = end(RAW(nr, pid, &iov, 1, &iov, 1, 0));
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        return code;
    }
    if (HOW("proc-mem")) { /* writes another process's memory through its file */
        pid_t pid = victim();
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/mem", pid);
        int fd = open(path, O_RDWR);
        int code = end(fd < 0 ? -1 : pwrite(fd, "owned", 5, (off_t)page));
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        return code;
    }
    if (HOW("bpf")) {
        union bpf_attr a = { .map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1 };
        return end(RAW(SYS_bpf, BPF_MAP_CREATE, &a, sizeof a));
    }
    if (HOW("perf_event_open")) {
        struct perf_event_attr a = { .type = PERF_TYPE_SOFTWARE, .size = sizeof a, .config = PERF_COUNT_SW_TASK_CLOCK,
                                     .exclude_kernel = 1 };
        return end(RAW(SYS_perf_event_open, &a, 0, -1, -1, 0));
    }
    if (HOW("userfaultfd")) return end(RAW(SYS_userfaultfd, 1 /* UFFD_USER_MODE_ONLY */));
    if (HOW("keyctl")) return end(RAW(SYS_keyctl, 0 /* GET_KEYRING_ID */, -3 /* session */, 1));
    if (HOW("add_key")) return end(RAW(SYS_add_key, "user", "agentbox-test", "x", 1, -2 /* process */));
    if (HOW("io_uring_setup")) {
        struct io_uring_params params = { 0 };
        return end(RAW(SYS_io_uring_setup, 4, &params));
    }
    if (HOW("open_by_handle_at")) {
        struct { struct file_handle h; char room[128]; } f = { .h.handle_bytes = 128 };
        int mount_id, dir = open(argv[2], O_RDONLY | O_DIRECTORY);
        if (name_to_handle_at(AT_FDCWD, argv[2], &f.h, &mount_id, 0)) return end(-1);
        return end(open_by_handle_at(dir, &f.h, O_RDONLY));
    }
    if (HOW("personality")) return end(personality(ADDR_NO_RANDOMIZE));
    if (HOW("af_packet")) return end(socket(AF_PACKET, SOCK_RAW, 0));
    if (HOW("af_vsock")) return end(socket(40, SOCK_STREAM, 0));
    if (HOW("af_alg")) return end(socket(38, SOCK_SEQPACKET, 0));
    if (HOW("raw-socket")) return end(socket(AF_INET, SOCK_RAW, 1 /* ICMP */));
    if (HOW("tiocsti")) return end(ioctl(0, TIOCSTI, "x"));
    if (HOW("tiocsti-high")) return end(RAW(SYS_ioctl, 0, TIOCSTI | (1UL << 32), "x"));
    fprintf(stderr, "no such call: %s (%d arguments)\n", argv[1], argc);
    return 99;
}
