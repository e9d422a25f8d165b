/* One change to the file system: change [hidden] HOW PATH [PATH2]. Each call that changes a name or what it holds has a
 * verb; who is hidden shows nobody its memory and its descriptors. */
#include "attempt.h"
#include <linux/openat2.h>
#include <sys/prctl.h>

static int fd_end(int fd) {
    if (fd < 0) return end(-1);
    return end(write(fd, "owned\n", 6));
}

int main(int argc, char **argv) {
    if (HOW("hidden")) {
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
        argv++, argc--;
    }
    const char *p = argv[2], *q = argc > 3 ? argv[3] : "";
    char text[PATH_MAX];
    if (HOW("open")) return fd_end(open(p, O_WRONLY));
    if (HOW("append")) return fd_end(open(p, O_WRONLY | O_APPEND));
    if (HOW("rdwr")) return fd_end(open(p, O_RDWR));
    if (HOW("open-only")) return end(open(p, O_WRONLY)); /* nothing is written: harmless where it is allowed */
    if (HOW("trunc-rdonly")) return end(open(p, O_RDONLY | O_TRUNC));
    if (HOW("creat")) return fd_end(RAW(SYS_creat, p, 0644));
    if (HOW("raw-open")) return fd_end(RAW(SYS_open, p, O_WRONLY | O_CREAT, 0644));
    if (HOW("create")) return fd_end(open(p, O_WRONLY | O_CREAT, 0755));
    if (HOW("create-excl")) return fd_end(open(p, O_WRONLY | O_CREAT | O_EXCL, 0755));
    if (HOW("create-rdonly")) return end(open(p, O_RDONLY | O_CREAT, 0755));
    if (HOW("openat2")) {
        struct open_how how = { .flags = O_WRONLY | O_CREAT, .mode = 0755 };
        return fd_end(RAW(SYS_openat2, AT_FDCWD, p, &how, sizeof how));
    }
    if (HOW("tmpfile-link")) { /* an unnamed file in the workspace, then given a name */
        int fd = open(".", O_TMPFILE | O_RDWR, 0755);
        if (fd < 0) return end(-1);
        snprintf(text, sizeof text, "/proc/self/fd/%d", fd);
        return end(linkat(AT_FDCWD, text, AT_FDCWD, p, AT_SYMLINK_FOLLOW));
    }
    if (HOW("dirfd")) { /* PATH is a directory, PATH2 a name in it */
        int dir = open(p, O_PATH | O_DIRECTORY);
        return dir < 0 ? end(-1) : fd_end(openat(dir, q, O_WRONLY | O_CREAT, 0755));
    }
    if (HOW("procfd")) {
        int dir = open(p, O_RDONLY | O_DIRECTORY);
        if (dir < 0) return end(-1);
        snprintf(text, sizeof text, "/proc/self/fd/%d/%s", dir, q);
        return fd_end(open(text, O_WRONLY | O_CREAT, 0755));
    }
    if (HOW("cwd")) return chdir(p) ? end(-1) : fd_end(open(q, O_WRONLY | O_CREAT, 0755));
    if (HOW("reopen")) { /* a descriptor for reading, opened again for writing through /proc */
        int fd = open(p, O_RDONLY);
        if (fd < 0) return end(-1);
        snprintf(text, sizeof text, "/proc/self/fd/%d", fd);
        return fd_end(open(text, O_WRONLY));
    }
    if (HOW("truncate")) return end(truncate(p, 0));
    if (HOW("rename")) return end(rename(p, q));
    if (HOW("exchange")) return end(RAW(SYS_renameat2, AT_FDCWD, p, AT_FDCWD, q, 2 /* RENAME_EXCHANGE */));
    if (HOW("noreplace")) return end(RAW(SYS_renameat2, AT_FDCWD, p, AT_FDCWD, q, 1 /* RENAME_NOREPLACE */));
    if (HOW("link")) return end(link(p, q));
    if (HOW("link-write")) return link(p, q) ? end(-1) : fd_end(open(q, O_WRONLY));
    if (HOW("symlink")) return end(symlink(p, q));
    if (HOW("symlink-write")) return symlink(p, q) ? end(-1) : fd_end(open(q, O_WRONLY | O_CREAT, 0644));
    if (HOW("mkdir")) return end(mkdir(p, 0755));
    if (HOW("fifo")) return end(mkfifo(p, 0644));
    if (HOW("mknod-file")) return end(mknod(p, S_IFREG | 0755, 0));
    if (HOW("mknod-device")) return end(mknod(p, S_IFCHR | 0666, 0x103 /* null */));
    if (HOW("unlink")) return end(unlink(p));
    if (HOW("rmdir")) return end(rmdir(p));
    if (HOW("chmod")) return end(chmod(p, 0777));
    if (HOW("chmod-plain")) return end(chmod(p, 0700)); /* lends no rights and lets nobody else write */
    if (HOW("chmod-same")) { /* nothing changes, where it is allowed */
        struct stat st;
        return stat(p, &st) ? end(-1) : end(chmod(p, st.st_mode & 07777));
    }
    if (HOW("utime-same")) {
        struct stat st;
        if (stat(p, &st)) return end(-1);
        struct timespec t[2] = { st.st_atim, st.st_mtim };
        return end(utimensat(AT_FDCWD, p, t, 0));
    }
    if (HOW("fchmod-stdin")) return end(fchmod(0, 0700));
    if (HOW("futimens-stdin")) {
        struct timespec t[2] = { { 1, 0 }, { 1, 0 } };
        return end(futimens(0, t));
    }
    if (HOW("chmod-proc-stdin")) return end(chmod("/proc/self/fd/0", 0700));
    if (HOW("create-rdwr")) return fd_end(open(p, O_RDWR | O_CREAT, 0644));
    if (HOW("symlink-read")) {
        int fd = symlink(p, q) ? -1 : open(q, O_RDONLY);
        return fd < 0 ? end(-1) : end(read(fd, text, sizeof text) > 0 ? 0 : -1);
    }
    if (HOW("exec")) { execl(p, p, (char *)0); return end(-1); }
    if (HOW("fchmod")) { int fd = open(p, O_RDONLY); return fd < 0 ? end(-1) : end(fchmod(fd, 0777)); }
    if (HOW("fchmodat2")) return end(RAW(452, AT_FDCWD, p, 0777, 0));
    if (HOW("chown")) return end(chown(p, -1, getegid()));
    if (HOW("fchown")) { int fd = open(p, O_RDONLY); return fd < 0 ? end(-1) : end(fchown(fd, -1, getegid())); }
    if (HOW("utimensat")) {
        struct timespec t[2] = { { 1, 0 }, { 1, 0 } };
        return end(utimensat(AT_FDCWD, p, t, 0));
    }
    if (HOW("futimens")) {
        struct timespec t[2] = { { 1, 0 }, { 1, 0 } };
        int fd = open(p, O_RDONLY);
        return fd < 0 ? end(-1) : end(futimens(fd, t));
    }
    if (HOW("setxattr")) return end(setxattr(p, "user.owned", "1", 1, 0));
    if (HOW("fsetxattr")) { int fd = open(p, O_RDONLY); return fd < 0 ? end(-1) : end(fsetxattr(fd, "user.owned", "1", 1, 0)); }
    if (HOW("bind")) {
        struct sockaddr_un at = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        strncpy(at.sun_path, p, sizeof at.sun_path - 1);
        return end(bind(fd, (struct sockaddr *)&at, sizeof at));
    }
    if (HOW("read")) {
        int fd = open(p, O_RDONLY);
        return fd < 0 ? end(-1) : end(read(fd, text, sizeof text) > 0 ? 0 : -1);
    }
    if (HOW("away-and-back")) { /* PATH is a directory to carry aside, PATH2 a name in it */
        char aside[PATH_MAX], inner[PATH_MAX + 256];
        snprintf(aside, sizeof aside, "%s-aside", p);
        snprintf(inner, sizeof inner, "%s/%s", aside, q);
        if (rename(p, aside)) return end(-1);
        int fd = open(inner, O_WRONLY | O_CREAT | O_TRUNC, 0755);
        if (fd < 0 || write(fd, "owned\n", 6) < 0) return end(-1);
        return end(rename(aside, p));
    }
    if (HOW("via-symlinked-dir")) { /* a link to the directory PATH, then the name PATH2 through the link */
        if (symlink(p, "lane")) return end(-1);
        snprintf(text, sizeof text, "lane/%s", q);
        return fd_end(open(text, O_WRONLY | O_CREAT, 0755));
    }
    if (HOW("build-and-rename")) { /* makes PATH as a tree holding PATH2 under another name, then moves the tree there */
        char inner[PATH_MAX + 256];
        snprintf(inner, sizeof inner, "stage/%s", q);
        if (mkdir("stage", 0755)) return end(-1);
        int fd = open(inner, O_WRONLY | O_CREAT, 0755);
        if (fd < 0) return end(-1);
        return end(rename("stage", p));
    }
    fprintf(stderr, "no such verb: %s\n", argv[1]);
    return 99;
}
