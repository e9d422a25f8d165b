/* An argument vector that is rewritten while it is judged: race_argv thread|process TRIES PROGRAM.
 *
 * The program's one argument alternates between A and B, by another thread of the process that makes the exec, or by
 * another process that shares the memory. */
#include "attempt.h"

static volatile char *shared;

/* Long enough for a store to be seen by the other processor before the next one. */
static void linger(void) {
    for (volatile int turn = 0; turn < 100; turn++);
}

static void *flip(void *unused) {
    for (;;) { *shared = 'A'; linger(); *shared = 'B'; linger(); }
    return unused;
}

int main(int argc, char **argv) {
    int tries = atoi(argv[2]), ended = 0, killed = 0;
    pid_t other = 0;
    shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (argc != 4 || shared == MAP_FAILED) return 99;
    strcpy((char *)shared, "A");
    if (HOW("process") && (other = fork()) == 0) flip(NULL);
    for (int i = 0; i < tries; i++) {
        pid_t pid = fork();
        int status;
        if (pid == 0) {
            pthread_t thread;
            *shared = i % 2 ? 'A' : 'B';
            if (HOW("thread") && pthread_create(&thread, NULL, flip, NULL)) _exit(99);
            if (HOW("thread")) usleep(i % 50);
            execl(argv[3], "noted", shared, NULL);
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
