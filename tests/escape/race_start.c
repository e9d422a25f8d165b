/* What an exec names changes while it is judged: race_start HOW thread|process TRIES.
 *
 * Here are two directories, `good` and `hood`, with a program `x` in each that leaves its directory's name in $MARKS. By
 * another thread of the process that makes the exec, or by another process that shares what it takes,
 *
 * path:     the path in memory leads to the one and the other;
 * link:     a symbolic link does;
 * file:     the file of one name is replaced by the one and the other;
 * loader:   the same, and the dynamic loader is told to run it;
 * cwd:      the working directory is the one and the other, and the path is relative;
 * line:     a script is rewritten in place: its interpreter is the one and the other;
 * swap:     a script of one name is replaced by one with the other interpreter;
 * script:   a link leads to one script and another, both for the same interpreter;
 * text:     a script of one name is replaced by another for the same interpreter;
 * env:      the same, and `env` looks for the interpreter;
 * relative: the interpreter of a script is relative to the working directory, which is the one and the other. */
#include "attempt.h"

static const char *how;
static char *path, here[PATH_MAX];
static int places[2];

/* Long enough for a store to be seen by the other processor before the next one. */
static void linger(void) {
    for (volatile int turn = 0; turn < 100; turn++);
}

static void put(const char *name, int which) {
    char text[PATH_MAX + 16];
    int length = snprintf(text, sizeof text, "#!%s/%s/x\n", here, which ? "hood" : "good");
    int fd = open(name, O_WRONLY | O_CREAT, 0755);
    if (fd < 0 || write(fd, text, length) != length) return;
    close(fd);
}

/* Lets what is started be the one or the other. */
static void turn(int which) {
    const char *name = which ? "hood/x" : "good/x";
    if (!strcmp(how, "path")) { *(volatile char *)path = *name; linger(); }
    if (!strcmp(how, "link")) { unlink("next"); if (symlink(name, "next") || rename("next", "x")) return; }
    if (!strcmp(how, "script")) {
        unlink("next");
        if (symlink(which ? "hood/script" : "good/script", "next") || rename("next", "x")) return;
    }
    if (!strcmp(how, "text") || !strcmp(how, "env")) {
        unlink("next");
        if (link(which ? "hood/script" : "good/script", "next") || rename("next", "x")) return;
    }
    if (!strcmp(how, "file") || !strcmp(how, "loader")) { unlink("next"); if (link(name, "next") || rename("next", "x")) return; }
    if (!strcmp(how, "line")) put("x", which);
    if (!strcmp(how, "swap")) { put("next", which); if (rename("next", "x")) return; }
    if (!strcmp(how, "cwd") || !strcmp(how, "relative")) { if (fchdir(places[which])) return; }
}

static void *turning(void *unused) {
    for (;;) { turn(0); turn(1); }
    return unused;
}

int main(int argc, char **argv) {
    int tries = argc == 4 ? atoi(argv[3]) : 0, ended = 0, killed = 0;
    int thread = argc == 4 && !strcmp(argv[2], "thread");
    /* Processes that share their working directory. */
    int share = !thread && (HOW("cwd") || HOW("relative")) ? CLONE_FS : 0;
    pid_t other = 0;
    how = argv[1];
    path = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    places[0] = open("good", O_PATH | O_DIRECTORY);
    places[1] = open("hood", O_PATH | O_DIRECTORY);
    if (!tries || path == MAP_FAILED || places[1] < 0 || !getcwd(here, sizeof here)) return 99;
    strcpy(path, HOW("path") ? "good/x" : HOW("relative") ? "../script" : "./x");
    turn(0);
    if (!thread && (other = RAW(SYS_clone, share | SIGCHLD, 0, 0, 0, 0)) == 0) turning(NULL);
    for (int i = 0; i < tries; i++) {
        pid_t pid = RAW(SYS_clone, share | SIGCHLD, 0, 0, 0, 0);
        int status;
        if (pid == 0) {
            pthread_t turner;
            if (thread && (turn(i % 2), pthread_create(&turner, NULL, turning, NULL))) _exit(99);
            if (thread) usleep(i % 50);
            if (HOW("loader")) execl("/lib64/ld-linux-x86-64.so.2", "x", path, NULL);
            else execl(path, "x", NULL);
            _exit(1);
        }
        waitpid(pid, &status, 0);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0) ended++;
        if (WIFSIGNALED(status)) killed++;
    }
    if (other) { kill(other, SIGKILL); waitpid(other, NULL, 0); }
    printf("%d ran, %d were killed of %d\n", ended, killed, tries);
    return 0;
}
