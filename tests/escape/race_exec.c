/* A program that changes while it is judged: race_exec flip|link|argv TRIES FIRST SECOND.
 *
 * flip: the path lies in memory shared with a process that writes FIRST and SECOND there in turn, one byte apart.
 * link: the path is a symbolic link that another process points at FIRST and SECOND in turn.
 * argv: the program is FIRST; its one argument lies in shared memory and alternates between A and B. */
#include "attempt.h"

/* Long enough for a store to be seen by the other processor before the next one. */
static void linger(void) {
    for (volatile int turn = 0; turn < 100; turn++);
}

int main(int argc, char **argv) {
    char *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int tries = atoi(argv[2]), ended = 0, killed = 0;
    const char *first = argv[3], *second = argv[4];
    pid_t other;
    if (argc != 5 || shared == MAP_FAILED) return 99;
    strcpy(shared, HOW("argv") ? "A" : HOW("link") ? "turning" : first);
    if (HOW("link") && symlink(first, "turning")) return 99;
    if ((other = fork()) == 0) {
        for (;;) {
            volatile char *byte = shared;
            if (HOW("argv")) { *byte = 'A'; linger(); *byte = 'B'; linger(); continue; }
            if (HOW("link")) {
                unlink("next"); if (symlink(second, "next") || rename("next", "turning")) continue;
                unlink("next"); if (symlink(first, "next") || rename("next", "turning")) continue;
                continue;
            }
            size_t at = 0;
            while (first[at] == second[at]) at++;
            byte += at;
            *byte = first[at];
            linger();
            *byte = second[at];
            linger();
        }
    }
    for (int i = 0; i < tries; i++) {
        pid_t pid = fork();
        int status;
        if (pid == 0) {
            if (HOW("argv")) execl(first, "noted", shared, NULL);
            else execl(shared, "racer", NULL);
            _exit(1);
        }
        waitpid(pid, &status, 0);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0) ended++;
        if (WIFSIGNALED(status)) killed++;
    }
    kill(other, SIGKILL);
    waitpid(other, NULL, 0);
    printf("ran %d, killed %d of %d\n", ended, killed, tries);
    return ended == 0;
}
