/* A path argument that changes while it is judged: race_path flip|swap TRIES FIRST SECOND [CALL].
 *
 * flip: FIRST and SECOND differ in their first byte; one thread flips it while the other makes the call on that path.
 * swap: FIRST is a directory, SECOND a link to another one; one thread exchanges them while the other makes the call on
 * FIRST/x.
 * CALL is `create` (open for writing) if none is given. A call that makes a name makes a new one each time (x0, x1, …),
 * and what a call uses up is put back first, by way of a descriptor of the directory FIRST lies in, or is. Says how
 * often the call succeeded. */
#include "attempt.h"
#include <stdatomic.h>

static char path[PATH_MAX];
static char **args;
static atomic_int started, over;

static void *flipper(void *unused) {
    volatile char *first = path;
    (void)unused;
    started = 1;
    while (!over) { *first = *args[3]; *first = *args[4]; }
    return NULL;
}

static void *swapper(void *unused) {
    (void)unused;
    started = 1;
    while (!over) RAW(SYS_renameat2, AT_FDCWD, args[3], AT_FDCWD, args[4], 2 /* RENAME_EXCHANGE */);
    return NULL;
}

static long opened(int fd) {
    if (fd >= 0) close(fd);
    return fd;
}

/* Puts back what the last try took away. */
static void prepare(const char *call, int home, const char *name) {
    if (!strcmp(call, "unlink") || !strcmp(call, "rename")) opened(openat(home, name, O_WRONLY | O_CREAT, 0644));
    if (!strcmp(call, "rmdir")) mkdirat(home, name, 0755);
    if (!strcmp(call, "replace") || !strcmp(call, "linkto")) opened(open("piece", O_WRONLY | O_CREAT, 0644));
    if (!strcmp(call, "link")) unlink("taken");
}

static long make(const char *call) {
    struct timespec long_ago[2] = {{1000000000, 0}, {1000000000, 0}};
#define IS(name) (!strcmp(call, name))
    if (IS("create")) return opened(open(path, O_WRONLY | O_CREAT, 0755));
    if (IS("exclusive")) return opened(open(path, O_WRONLY | O_CREAT | O_EXCL, 0644));
    if (IS("write")) {
        int fd = open(path, O_WRONLY);
        return fd < 0 || write(fd, "w", 1) < 0 ? -1 : opened(fd);
    }
    if (IS("cut")) return opened(open(path, O_RDONLY | O_TRUNC));
    if (IS("truncate")) return truncate(path, 0);
    if (IS("unlink")) return unlink(path);
    if (IS("rmdir")) return rmdir(path);
    if (IS("rename")) return rename(path, "taken");
    if (IS("replace")) return rename("piece", path);
    if (IS("link")) return link(path, "taken");
    if (IS("linkto")) return link("piece", path);
    if (IS("symlink")) return symlink("nowhere", path);
    if (IS("mkdir")) return mkdir(path, 0755);
    if (IS("mknod")) return mknod(path, S_IFIFO | 0644, 0);
    if (IS("chmod")) return chmod(path, 0640);
    if (IS("chown")) return chown(path, geteuid(), getegid());
    if (IS("utime")) return utimensat(AT_FDCWD, path, long_ago, 0);
    if (IS("xattr")) return setxattr(path, "user.race", "1", 1, 0);
    if (IS("bind")) {
        struct sockaddr_un name = {AF_UNIX, ""};
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        /* The address is copied once more here, so only what bind itself reads again can race. */
        memcpy(name.sun_path, path, strlen(path));
        long got = bind(fd, (struct sockaddr *)&name, sizeof name);
        close(fd);
        return got;
    }
    fprintf(stderr, "no such call: %s\n", call);
    exit(2);
}

int main(int argc, char **argv) {
    pthread_t thread;
    int done = 0, again = 1, tries = atoi(argv[2]), swap = HOW("swap"), home;
    const char *call = argc > 5 ? argv[5] : "create";
    args = argv;
    snprintf(path, sizeof path, swap ? "%s/x" : "%s", argv[3]);
    char *name = strrchr(path, '/'), *end = path + strlen(path);
    *name = 0;
    home = open(path, O_RDONLY | O_DIRECTORY);
    *name++ = '/';
    static const char *makers[] = {"exclusive", "linkto", "symlink", "mkdir", "mknod", "bind"};
    int makes = 0;
    for (int i = 0; i < 6; i++) makes |= !strcmp(makers[i], call);
    pthread_create(&thread, NULL, swap ? swapper : flipper, NULL);
    while (!started) sched_yield();
    for (int i = 0; i < tries; i++) {
        if (makes) sprintf(end, "%d", i);
        /* Not in step with the other thread, or the same of the two would come up each time. */
        if (swap) usleep((useconds_t)(rand() % 100));
        if (again) prepare(call, home, name);
        again = make(call) >= 0;
        done += again;
    }
    over = 1;
    pthread_join(thread, NULL);
    printf("%d of %d succeeded\n", done, tries);
    return done == 0 || argc < 5;
}
