/* What every attempt shares: exit 0 if and only if the act succeeded, else print the error's name and exit 1. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

/* The end of an attempt: `rc` is what the call returned. */
static inline int end(long rc) {
    if (rc >= 0) { puts("done"); return 0; }
    puts(strerrorname_np(errno));
    return 1;
}

/* The same for calls that are not made through the C library. */
#define RAW(...) syscall(__VA_ARGS__)
#define HOW(name) (!strcmp(argv[1], name))
