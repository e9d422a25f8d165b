/* Roads to a program: roads ROAD FILE ARGS…
 *
 * empty, opath: execveat of a descriptor of FILE, open for reading or not at all;
 * below:        execveat of its name below a descriptor of the working directory;
 * nofollow:     the same, and no link is followed;
 * self:         FILE is run, and runs itself again by /proc/self/exe;
 * check:        asks whether FILE may be run, by its name; check-empty: by a descriptor. Says the answer. */
#include "attempt.h"

#ifndef AT_EXECVE_CHECK
#define AT_EXECVE_CHECK 0x10000
#endif

int main(int argc, char **argv) {
    extern char **environ;
    char *const *args = argv + 2;
    if (argc < 3) return 99;
    int fd = open(argv[2], HOW("opath") ? O_PATH : O_RDONLY), here = open(".", O_PATH | O_DIRECTORY);
    long rc = -1;
    if (HOW("empty") || HOW("opath")) rc = RAW(SYS_execveat, fd, "", args, environ, AT_EMPTY_PATH);
    if (HOW("below")) rc = RAW(SYS_execveat, here, argv[2], args, environ, 0);
    if (HOW("nofollow")) rc = RAW(SYS_execveat, here, argv[2], args, environ, AT_SYMLINK_NOFOLLOW);
    if (HOW("self")) {
        char *again[] = {"roads", argc > 3 ? argv[3] : "empty", argv[2], NULL};
        rc = execv("/proc/self/exe", again);
    }
    if (HOW("check")) rc = RAW(SYS_execveat, AT_FDCWD, argv[2], args, environ, AT_EXECVE_CHECK);
    if (HOW("check-empty")) rc = RAW(SYS_execveat, fd, "", args, environ, AT_EMPTY_PATH | AT_EXECVE_CHECK);
    printf("%s\n", rc < 0 ? strerrorname_np(errno) : "yes");
    return rc < 0;
}
