/* A path argument that changes while it is judged: race_path flip|swap TRIES FIRST SECOND.
 *
 * flip: FIRST and SECOND differ in their first byte; one thread flips it while the other opens for writing.
 * swap: FIRST is a directory, SECOND a link to another one; one thread exchanges them while the other creates FIRST/x. */
#include "attempt.h"
#include <stdatomic.h>

static char path[PATH_MAX];
static char **args;
static atomic_int over;

static void *flipper(void *unused) {
    volatile char *first = path;
    (void)unused;
    while (!over) { *first = *args[3]; *first = *args[4]; }
    return NULL;
}

static void *swapper(void *unused) {
    (void)unused;
    while (!over) RAW(SYS_renameat2, AT_FDCWD, args[3], AT_FDCWD, args[4], 2 /* RENAME_EXCHANGE */);
    return NULL;
}

int main(int argc, char **argv) {
    pthread_t thread;
    int opened = 0, tries = atoi(argv[2]), swap = HOW("swap");
    args = argv;
    snprintf(path, sizeof path, swap ? "%s/x" : "%s", argv[3]);
    pthread_create(&thread, NULL, swap ? swapper : flipper, NULL);
    for (int i = 0; i < tries; i++) {
        int fd = open(path, O_WRONLY | O_CREAT, 0755);
        if (fd >= 0) { opened++; close(fd); }
    }
    over = 1;
    pthread_join(thread, NULL);
    printf("opened %d of %d\n", opened, tries);
    return opened == 0 || argc != 5;
}
