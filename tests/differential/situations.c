/* Situations that one call alone does not make: situations NAME [NUMBER]. Prints what came of it, the same wherever it
 * runs; the working directory is its own. */
#include "attempt.h"
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/xattr.h>

static int number;
static const char *error(long got) { return got >= 0 ? "ok" : strerrorname_np(errno); }
static const char *name(const char *prefix, int i) {
    static __thread char names[4][64];
    static __thread int next;
    next = (next + 1) % 4;
    snprintf(names[next], sizeof names[next], "%s%d", prefix, i);
    return names[next];
}
static int failures[200];
static void count(long got) { if (got < 0) __atomic_add_fetch(&failures[errno], 1, __ATOMIC_SEQ_CST); }
static void tell_failures(void) {
    for (int i = 0; i < 200; i++) if (failures[i]) printf("%s %d times\n", strerrorname_np(i), failures[i]);
}
static int make(const char *path, int flags) {
    int fd = open(path, flags | O_CREAT | O_CLOEXEC, 0644);
    if (fd >= 0) close(fd);
    return fd;
}
static void nap(int ms) { usleep((useconds_t)ms * 1000); }

/* Two processes want every name for themselves: one of them gets it. */
static int race_for_names(void) {
    int *won = mmap(NULL, sizeof(int) * (size_t)number * 2, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    make("source", 0);
    pid_t child = fork();
    int me = child == 0;
    for (int i = 0; i < number; i++) {
        long got;
        switch (i % 5) {
        case 0: got = make(name("n", i), O_EXCL | O_WRONLY); break;
        case 1: got = mkdir(name("n", i), 0755); break;
        case 2: got = symlink("x", name("n", i)); break;
        case 3: got = link("source", name("n", i)); break;
        default: make(name(me ? "m" : "p", i), 0); got = RAW(SYS_renameat2, AT_FDCWD, name(me ? "m" : "p", i), AT_FDCWD, name("n", i), 1);
        }
        won[i * 2 + me] = got >= 0 ? 1 : errno == EEXIST ? 0 : 100 + errno;
    }
    if (child == 0) _exit(0);
    waitpid(child, NULL, 0);
    int once = 0, other = 0;
    for (int i = 0; i < number; i++) if (won[i * 2] + won[i * 2 + 1] == 1) once++; else other++;
    printf("%d names won once, %d otherwise\n", once, other);
    return 0;
}

static pthread_barrier_t together;
static void *one_of_many(void *which) {
    int i = (int)(long)which;
    pthread_barrier_wait(&together);
    for (int k = 0; k < 3; k++) {
        int fd = open(name("t", i), O_WRONLY | O_CREAT | O_EXCL, 0600);
        count(fd);
        if (fd >= 0) { count(write(fd, name("t", i), 4)); close(fd); }
        count(rename(name("t", i), name("u", i)));
        count(mkdir(name("d", i), 0700));
        count(link(name("u", i), name("v", i)));
        count(unlink(name("v", i)));
        count(rmdir(name("d", i)));
        count(truncate(name("u", i), i));
        if (k < 2) count(unlink(name("u", i)));
    }
    return NULL;
}
static int crowd(void) {
    pthread_t *threads = calloc((size_t)number, sizeof *threads);
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 65536);
    pthread_barrier_init(&together, NULL, (unsigned)number);
    for (int i = 0; i < number; i++) if (pthread_create(&threads[i], &small, one_of_many, (void *)(long)i)) { puts("no thread"); exit(0); }
    for (int i = 0; i < number; i++) pthread_join(threads[i], NULL);
    int right = 0;
    for (int i = 0; i < number; i++) {
        struct stat st;
        right += !stat(name("u", i), &st) && st.st_size == i;
    }
    printf("%d right\n", right);
    tell_failures();
    return 0;
}

/* Threads with a working directory and a mask of their own. */
static void *own_place(void *which) {
    int i = (int)(long)which;
    count(unshare(CLONE_FS));
    count(mkdir(name("own", i), 0777));
    count(chdir(name("own", i)));
    umask((mode_t)(i % 64));
    pthread_barrier_wait(&together);
    for (int k = 0; k < 40; k++) {
        struct stat st;
        count(make("f", O_EXCL | O_WRONLY));
        count(mkdir("d", 0777));
        if (stat("f", &st) || (st.st_mode & 0777) != (0644 & ~(unsigned)(i % 64))) errno = EILSEQ, count(-1);
        if (stat("d", &st) || (st.st_mode & 0777) != (0777 & ~(unsigned)(i % 64))) errno = EILSEQ, count(-1);
        count(rename("f", "../f") < 0 ? -1 : 0);
        count(rmdir("d"));
    }
    return NULL;
}
static int own_places(void) {
    pthread_t threads[16];
    umask(0);
    pthread_barrier_init(&together, NULL, 16);
    for (long i = 0; i < 16; i++) pthread_create(&threads[i], NULL, own_place, (void *)(i * 3));
    for (int i = 0; i < 16; i++) pthread_join(threads[i], NULL);
    tell_failures();
    return 0;
}

/* Signals come while calls run: none is interrupted, none is done twice. */
static volatile int came;
static void on_signal(int signal) {
    int kept = errno;
    (void)signal;
    static const struct itimerval never = {{0, 0}, {0, 0}};
    if (++came == 400) setitimer(ITIMER_REAL, &never, NULL); /* so that the calls come to an end on a slow machine */
    if (number & 1) { count(mkdir("handler", 0700)); count(rmdir("handler")); } /* signals are masked here */
    errno = kept;
}
/* An interrupted call is made again: whatever else fails then had an effect twice, or none. */
static int interrupted;
#define DONE(call) do { long got_; while ((got_ = (call)) < 0 && errno == EINTR) interrupted++; count(got_); } while (0)
static void all_calls(int rounds) {
    for (int i = 0; i < rounds; i++) {
        DONE(mkdir("d", 0755));
        DONE(make("d/f", O_EXCL | O_WRONLY));
        DONE(make("d/f", O_TRUNC | O_RDWR));
        DONE(link("d/f", "d/g"));
        DONE(symlink("f", "d/l"));
        DONE(rename("d/g", "d/h"));
        DONE(truncate("d/h", 10));
        DONE(chmod("d/h", 0600));
        DONE(utimensat(AT_FDCWD, "d/h", NULL, 0));
        DONE(chown("d/h", (uid_t)-1, (gid_t)-1));
        DONE(setxattr("d/h", "user.a", "1", 1, XATTR_CREATE) && errno != ENOTSUP ? -1 : 0);
        DONE(mkfifo("d/p", 0600));
        DONE(unlink("d/p")); DONE(unlink("d/l")); DONE(unlink("d/h")); DONE(unlink("d/f"));
        DONE(rmdir("d"));
    }
}
static int signals(int flags) {
    struct sigaction act = {.sa_handler = on_signal, .sa_flags = flags};
    struct itimerval often = {{0, 0}, {0, 0}}, never = often;
    often.it_interval.tv_usec = often.it_value.tv_usec = number & 1 ? 1500 : 400;
    sigaction(SIGALRM, &act, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    all_calls(400);
    setitimer(ITIMER_REAL, &never, NULL);
    printf("signals came: %s\n", came > 2 ? "yes" : "no");
    printf("interrupted: %s\n", interrupted ? "yes" : "no");
    fprintf(stderr, "%d interrupted, %d signals\n", interrupted, came);
    tell_failures();
    return 0;
}
static int stopped(void) {
    pid_t child = fork();
    if (child == 0) { all_calls(200); tell_failures(); fflush(stdout); _exit(0); }
    int status;
    while (waitpid(child, &status, WNOHANG) == 0) { kill(child, SIGSTOP); usleep(200); kill(child, SIGCONT); usleep(400); }
    printf("ended %d\n", status);
    return 0;
}

/* Who waits at a FIFO is interrupted by a signal with a handler, or goes on waiting with SA_RESTART. */
static int fifo(int flags, int restart, int peer) {
    struct sigaction act = {.sa_handler = on_signal, .sa_flags = restart ? SA_RESTART : 0};
    struct itimerval once = {{0, 0}, {0, 150000}};
    sigaction(SIGALRM, &act, NULL);
    mkfifo("p", 0600);
    pid_t child = fork();
    if (child == 0) { /* so that it ends in any case */
        nap(peer);
        int fd = open("p", O_RDWR | O_NONBLOCK);
        nap(300);
        _exit(fd < 0);
    }
    setitimer(ITIMER_REAL, &once, NULL);
    int fd = open("p", flags);
    printf("%s after %d signals, flags %o\n", error(fd), came, fd < 0 ? 0u : (unsigned)fcntl(fd, F_GETFL) & ~0100000u);
    waitpid(child, NULL, 0);
    return 0;
}

static int no_descriptor_left(void) {
    struct rlimit few = {64, 64};
    int fd;
    make("there", O_WRONLY);
    count(truncate("there", 7));
    setrlimit(RLIMIT_NOFILE, &few);
    while ((fd = open("/", O_RDONLY | O_DIRECTORY)) >= 0) {}
    struct stat st;
    int got = open("new", O_WRONLY | O_CREAT, 0644);
    printf("create %s", error(got));
    printf(", file %s\n", error(stat("new", &st)));
    got = open("there", O_WRONLY | O_TRUNC);
    printf("truncate %s", error(got));
    printf(", size %ld\n", stat("there", &st) ? -1L : (long)st.st_size);
    got = open("none", O_WRONLY);
    printf("missing %s\n", error(got));
    printf("others %s", error(mkdir("d", 0755)));
    printf(" %s\n", error(unlink("there")));
    close(5);
    got = open("new", O_WRONLY | O_CREAT, 0644);
    printf("then %s as %d\n", error(got), got);
    close(0);
    got = open("zero", O_WRONLY | O_CREAT, 0644);
    printf("then %s as %d\n", error(got), got);
    return 0;
}

static int file_size_limit(void) {
    struct rlimit small = {1000, 1000};
    struct sigaction act = {.sa_handler = on_signal};
    struct stat st;
    make("f", O_WRONLY);
    sigaction(SIGXFSZ, &act, NULL);
    setrlimit(RLIMIT_FSIZE, &small);
    printf("short %s", error(truncate("f", 900))); printf(", %d signals\n", came);
    printf("long %s", error(truncate("f", 5000))); printf(", %d signals\n", came);
    printf("size %ld\n", stat("f", &st) ? -1L : (long)st.st_size);
    signal(SIGXFSZ, SIG_IGN);
    printf("ignored %s\n", error(truncate("f", 5000)));
    int fd = open("g", O_WRONLY | O_CREAT, 0644);
    char bytes[2000] = "";
    printf("write %ld\n", (long)write(fd, bytes, sizeof bytes));
    printf("more %s\n", error(write(fd, bytes, 10)));
    return 0;
}

static int append(void) {
    pid_t child = fork();
    int fd = open("log", O_WRONLY | O_CREAT | O_APPEND, 0644);
    for (int i = 0; i < number; i++) count(write(fd, child ? "parent line\n" : "child  line\n", 12));
    if (child == 0) _exit(0);
    waitpid(child, NULL, 0);
    struct stat st;
    printf("size %ld\n", stat("log", &st) ? -1L : (long)st.st_size);
    tell_failures();
    return 0;
}

static int locks(void) {
    int fd = open("f", O_RDWR | O_CREAT, 0644), told[2];
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 10}, open_lock = {.l_type = F_WRLCK, .l_start = 20, .l_len = 5};
    printf("flock %s\n", error(flock(fd, LOCK_EX | LOCK_NB)));
    printf("fcntl %s\n", error(fcntl(fd, F_SETLK, &lock)));
    printf("ofd %s\n", error(fcntl(fd, F_OFD_SETLK, &open_lock)));
    fflush(stdout);
    if (pipe(told)) return 1;
    pid_t me = getpid(), child = fork();
    if (child == 0) {
        int other = open("f", O_RDWR);
        printf("child flock %s\n", error(flock(other, LOCK_EX | LOCK_NB)));
        struct flock ask = {.l_type = F_WRLCK, .l_len = 10};
        printf("child fcntl %s", error(fcntl(other, F_SETLK, &ask)));
        ask = (struct flock){.l_type = F_WRLCK, .l_len = 10};
        fcntl(other, F_GETLK, &ask);
        printf(" held by %s\n", ask.l_pid == me ? "parent" : "another");
        open_lock.l_pid = 0;
        printf("child ofd %s\n", error(fcntl(other, F_OFD_SETLK, &open_lock)));
        fflush(stdout);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    /* Any close of the file by its process drops its fcntl locks; one by anybody else must not. */
    int again = open("f", O_RDWR);
    child = fork();
    if (child == 0) {
        int other = open("f", O_RDWR);
        struct flock ask = {.l_type = F_WRLCK, .l_len = 10};
        printf("before close %s", error(fcntl(other, F_SETLK, &ask)));
        printf(" flock %s\n", error(flock(other, LOCK_EX | LOCK_NB)));
        fflush(stdout);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    close(again);
    child = fork();
    if (child == 0) {
        int other = open("f", O_RDWR);
        struct flock ask = {.l_type = F_WRLCK, .l_len = 10};
        printf("after close %s\n", error(fcntl(other, F_SETLK, &ask)));
        fflush(stdout);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    close(fd);
    fd = open("f", O_RDWR);
    printf("flock again %s\n", error(flock(fd, LOCK_EX | LOCK_NB)));
    return 0;
}

static int lease_fd;
static void on_break(int signal) { (void)signal; came++; fcntl(lease_fd, F_SETLEASE, F_UNLCK); }
static int leases(void) {
    struct sigaction act = {.sa_handler = on_break};
    make("f", O_WRONLY);
    int granted = 0;
    for (int i = 0; i < 50; i++) { /* nobody else may still hold what was just opened */
        int fd = open("f", i & 1 ? O_RDWR : O_WRONLY);
        granted += fcntl(fd, F_SETLEASE, F_WRLCK) == 0;
        close(fd);
    }
    printf("write leases %d of 50\n", granted);
    lease_fd = open("f", O_RDWR);
    sigaction(SIGIO, &act, NULL);
    printf("lease %s\n", error(fcntl(lease_fd, F_SETLEASE, F_WRLCK)));
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        close(lease_fd);
        signal(SIGIO, SIG_IGN);
        printf("without waiting %s\n", error(open("f", O_WRONLY | O_NONBLOCK)));
        printf("waiting %s\n", error(open("f", O_WRONLY)));
        fflush(stdout);
        _exit(0);
    }
    int status;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
    printf("told: %s\n", came ? "yes" : "no");
    return 0;
}

static int sparse(void) {
    struct stat st;
    int fd = open("s", O_RDWR | O_CREAT, 0644);
    printf("grow %s", error(truncate("s", 1l << 30)));
    stat("s", &st);
    printf(" size %ld blocks %ld\n", (long)st.st_size, (long)st.st_blocks);
    count(pwrite(fd, "x", 1, 1 << 20));
    stat("s", &st);
    printf("data at %ld, hole at %ld\n", (long)lseek(fd, 0, SEEK_DATA), (long)lseek(fd, 1 << 20, SEEK_HOLE));
    fd = open("s", O_WRONLY | O_TRUNC);
    fstat(fd, &st);
    printf("cut to %ld, blocks %ld\n", (long)st.st_size, (long)st.st_blocks);
    return 0;
}

/* What a process may tell the kernel about itself by way of /proc. */
static void write_to(const char *path, const char *text) {
    char back[100] = "";
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    printf("%s: open %s", path, error(fd));
    if (fd >= 0) printf(", write %s", error(write(fd, text, strlen(text))));
    close(fd);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, back, sizeof back - 1);
    for (ssize_t i = 0; i < got; i++) if (back[i] == '\n') back[i] = '|';
    printf(", reads %s\n", back);
    close(fd);
}
static void *comm_of_thread(void *unused) { write_to("/proc/thread-self/comm", "a-thread"); return unused; }
static int about_itself(void) {
    pthread_t thread;
    write_to("/proc/self/comm", "main-one");
    write_to("/proc/self/oom_score_adj", "500");
    write_to("/proc/self/oom_score_adj", "501");
    write_to("/proc/self/coredump_filter", "0x13");
    write_to("/proc/self/timerslack_ns", "60000");
    write_to("/proc/self/clear_refs", "1");
    pthread_create(&thread, NULL, comm_of_thread, NULL);
    pthread_join(thread, NULL);
    char path[64];
    pid_t child = fork();
    if (child == 0) { nap(400); _exit(0); }
    snprintf(path, sizeof path, "/proc/%d/oom_score_adj", child);
    int fd = open(path, O_WRONLY);
    printf("child: open %s", error(fd));
    if (fd >= 0) printf(", write %s", error(write(fd, "600", 3)));
    puts("");
    waitpid(child, NULL, 0);
    fd = open("/dev/null", O_RDWR); printf("null %s\n", error(write(fd, "x", 1)));
    fd = open("/dev/full", O_WRONLY); printf("full %s\n", error(write(fd, "x", 1)));
    fd = open("/dev/stdout", O_WRONLY); printf("stdout %s\n", error(fd));
    fd = open("/proc/self/fd/1", O_WRONLY | O_APPEND); printf("fd/1 %s\n", error(fd));
    return 0;
}

/* Everything that can be done to what is held open, when nobody may enter the directory it lies in. */
static int no_way(void) {
    struct timespec long_ago[2] = {{1000000000, 5}, {1000000000, 5}};
    struct stat st;
    char link[40];
    mkdir("shut", 0755); mkdir("shut/d", 0755); make("shut/f", 0);
    int fd = open("shut/f", O_RDWR), path = open("shut/f", O_PATH), d = open("shut/d", O_RDONLY | O_DIRECTORY);
    chmod("shut", 0);
    printf("chmod %s\n", error(fchmod(fd, 0640)));
    printf("chown %s\n", error(fchown(fd, geteuid(), getegid())));
    printf("xattr %s\n", error(fsetxattr(fd, "user.a", "1", 1, 0)));
    printf("utime %s\n", error(futimens(fd, long_ago)));
    printf("by path descriptor: chmod %s", error(RAW(452 /* fchmodat2 */, path, "", 0600, AT_EMPTY_PATH)));
    printf(" chown %s", error(fchownat(path, "", geteuid(), getegid(), AT_EMPTY_PATH)));
    printf(" utime %s\n", error(utimensat(path, "", long_ago, AT_EMPTY_PATH)));
    snprintf(link, sizeof link, "/proc/self/fd/%d", path);
    printf("by its link: open %s", error(open(link, O_RDWR)));
    printf(" truncate %s", error(truncate(link, 77)));
    printf(" chmod %s", error(chmod(link, 0644)));
    printf(" link %s\n", error(linkat(AT_FDCWD, link, AT_FDCWD, "linked", AT_SYMLINK_FOLLOW)));
    printf("below: make %s", error(openat(d, "new", O_WRONLY | O_CREAT, 0600)));
    printf(" mkdir %s", error(mkdirat(d, "dir", 0700)));
    printf(" rename %s", error(renameat(d, "dir", AT_FDCWD, "moved")));
    printf(" itself %s %s\n", error(fchmod(d, 0711)), error(openat(d, ".", O_RDONLY | O_DIRECTORY)));
    printf("by name: %s %s\n", error(chmod("shut/f", 0600)), error(open("shut/f", O_WRONLY)));
    fstat(fd, &st);
    printf("%o %ld %ld links %ld\n", st.st_mode, (long)st.st_size, (long)st.st_atime, (long)st.st_nlink);
    return 0;
}

/* On a file system with room for a few names and a few pages. */
static int no_room(void) {
    static char page[4096];
    int left = 0, fd, last;
    while (make(name("f", left), O_EXCL) >= 0) left++;
    printf("%d names, then %s\n", left, error(-1));
    printf("open %s", error(make("open", O_EXCL)));
    printf(" mkdir %s", error(mkdir("dir", 0755)));
    printf(" mknod %s", error(mknod("fifo", S_IFIFO | 0644, 0)));
    printf(" symlink %s", error(symlink("nowhere", "link")));
    printf(" link %s", error(link("f0", "hard")));
    printf(" unnamed %s", error(open(".", O_TMPFILE | O_WRONLY, 0600)));
    struct sockaddr_un to = {AF_UNIX, "socket"};
    printf(" bind %s", error(bind(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&to, sizeof to)));
    printf(" exists %s", error(open("f0", O_WRONLY | O_CREAT, 0600)));
    printf(" rename %s\n", error(rename("f0", "g")));
    fd = open("g", O_WRONLY | O_TRUNC);
    for (left = 0; write(fd, page, sizeof page) == sizeof page; left++) {}
    last = errno;
    printf("%d pages, then %s", left, strerrorname_np(last));
    printf(" cut %s", error(truncate("g", 0)));
    printf(" again %s", error(write(open("g", O_WRONLY), page, sizeof page)));
    printf(" removed %s", error(unlink("g")));
    printf(" open %s\n", error(make("open", O_EXCL)));
    return 0;
}

/* What lies on the lower layer of an overlay is copied when it is changed, and covered when it is removed. */
static int lower_layer(void) {
    struct timespec long_ago[2] = {{1000000000, 5}, {1000000000, 5}};
    struct stat st;
    int early = open("a", O_RDONLY), path = open("b", O_PATH), fd;
    printf("write %s", error(write(open("a", O_WRONLY | O_APPEND), "more", 4)));
    printf(" chmod %s", error(fchmod(early, 0640)));
    printf(" by path %s", error(fchownat(path, "", geteuid(), getegid(), AT_EMPTY_PATH)));
    printf(" utime %s", error(utimensat(AT_FDCWD, "c", long_ago, 0)));
    printf(" xattr %s", error(setxattr("d", "user.a", "1", 1, 0)));
    printf(" cut %s", error(open("e", O_RDONLY | O_TRUNC)));
    printf(" truncate %s\n", error(truncate("f", 2)));
    printf("link %s", error(link("g", "linked")));
    printf(" rename %s", error(rename("h", "moved")));
    printf(" over %s", error(rename("moved", "i")));
    printf(" exchange %s", error(RAW(SYS_renameat2, AT_FDCWD, "i", AT_FDCWD, "dir", 2)));
    printf(" directory %s", error(rename("sub", "moved")));
    printf(" remove %s", error(unlink("j")));
    printf(" again %s", error(make("j", O_EXCL)));
    printf(" rmdir %s %s %s", error(rmdir("sub")), error(unlink("sub/x")), error(rmdir("sub")));
    printf(" mkdir %s", error(mkdir("sub", 0700)));
    printf(" missing %s\n", error(open("sub/x", O_RDWR)));
    fd = open("k", O_RDWR);
    printf("open while removed %s", error(unlink("k")));
    printf(" chmod %s", error(fchmod(fd, 0600)));
    char link_of_it[40];
    snprintf(link_of_it, sizeof link_of_it, "/proc/self/fd/%d", fd);
    printf(" by link %s\n", error(open(link_of_it, O_RDWR)));
    for (const char *each = "abcdefgij"; *each; each++) {
        char file[2] = {*each, 0};
        printf("%s %s", file, error(lstat(file, &st)));
        printf(" %o %ld %ld\n", st.st_mode, (long)st.st_size, (long)st.st_nlink);
    }
    return 0;
}

static void *hidden_thread(void *d) {
    int fd = -1;
    if (!unshare(CLONE_FILES)) fd = dup2(open("/dev/null", O_RDONLY), (int)(long)d);
    printf("own descriptors: %s %s\n", error(fd), error(openat((int)(long)d, "of-thread", O_WRONLY | O_CREAT, 0600)));
    return NULL;
}

/* A process whose memory and entries in /proc are hidden from others of its user. */
static int hidden(void) {
    char link_of_it[40];
    struct timespec long_ago[2] = {{1000000000, 5}, {1000000000, 5}};
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    printf("dumpable %d, make %s", prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), error(make("f", O_EXCL)));
    printf(" mkdir %s", error(mkdir("d", 0755)));
    int d = open("d", O_RDONLY | O_DIRECTORY), fd = openat(d, "g", O_RDWR | O_CREAT, 0666), path = openat(d, "g", O_PATH);
    printf(" below %s write %s", error(fd), error(write(fd, "text", 4)));
    printf(" rename %s", error(rename("f", "e")));
    printf(" link %s", error(linkat(AT_FDCWD, "e", d, "h", 0)));
    printf(" chdir %s", error(chdir("d")));
    printf(" there %s", error(open("g", O_RDONLY)));
    printf(" read %s", error(open("/etc/passwd", O_RDONLY)));
    printf(" missing %s\n", error(open("nothing", O_RDONLY)));
    printf("chmod %s utime %s xattr %s", error(fchmod(fd, 0640)), error(futimens(fd, long_ago)), error(fsetxattr(fd, "user.a", "1", 1, 0)));
    printf(" chown %s", error(fchownat(path, "", geteuid(), getegid(), AT_EMPTY_PATH)));
    printf(" without a right %s", error(fchmod(path, 0600)));
    printf(" not open %s\n", error(fchmod(77, 0600)));
    pthread_t thread;
    pthread_create(&thread, NULL, hidden_thread, (void *)(long)d);
    pthread_join(thread, NULL);
    snprintf(link_of_it, sizeof link_of_it, "/proc/self/fd/%d", fd);
    printf("by its link: open %s", error(open(link_of_it, O_RDWR)));
    printf(" chmod %s\n", error(chmod(link_of_it, 0600)));
    snprintf(link_of_it, sizeof link_of_it, "/dev/fd/%d/below", d);
    printf("below its link: make %s", error(make(link_of_it, O_EXCL)));
    printf(" no number %s", error(open("/proc/self/fd/077", O_RDONLY)));
    printf(" not open %s\n", error(open("/proc/self/fd/77", O_RDONLY)));
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) { execl("/bin/sh", "sh", "-c", "echo a program; umask; : > by-program", NULL); _exit(errno); }
    int status;
    waitpid(child, &status, 0);
    printf("ended %x\n", status);
    return 0;
}

static int handed_in(void) {
    printf("chmod %s\n", error(fchmod(0, 0600)));
    return 0;
}

/* What sending signals says, to whoever is there and whoever is not. */
static void *pausing(void *tid) {
    __atomic_store_n((pid_t *)tid, (pid_t)RAW(SYS_gettid), __ATOMIC_SEQ_CST);
    while (tid) pause();
    return tid;
}
static int sending(void) {
    static const int wrong[] = {-1, 65, 1000};
    pthread_t thread;
    pid_t tid = 0, nobody = 1 << 21, me = getpid();
    siginfo_t info = {.si_signo = SIGUSR1, .si_code = SI_QUEUE};
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    pthread_create(&thread, NULL, pausing, &tid);
    while (!__atomic_load_n(&tid, __ATOMIC_SEQ_CST)) nap(1);
    for (int i = 0; i < 3; i++) {
        printf("signal %d: %s %s", wrong[i], error(kill(me, wrong[i])), error(kill(nobody, wrong[i])));
        printf(" %s\n", error(RAW(SYS_tgkill, me, tid, wrong[i])));
    }
    printf("nobody: %s", error(kill(nobody, SIGUSR1)));
    printf(" %s", error(kill(-nobody, SIGUSR1)));
    printf(" %s", error(RAW(SYS_tkill, nobody, SIGUSR1)));
    printf(" %s", error(RAW(SYS_tgkill, me, nobody, SIGUSR1)));
    printf(" %s", error(RAW(SYS_tgkill, nobody, tid, SIGUSR1)));
    printf(" %s", error(RAW(SYS_rt_sigqueueinfo, nobody, SIGUSR1, &info)));
    printf(" %s", error(RAW(SYS_tkill, 0, SIGUSR1)));
    printf(" %s", error(RAW(SYS_tgkill, -1, tid, SIGUSR1)));
    printf(" %s\n", error(kill(INT_MIN, SIGUSR1)));
    printf("no descriptor: %s", error(RAW(SYS_pidfd_send_signal, 77, SIGUSR1, NULL, 0)));
    printf(" %s", error(RAW(SYS_pidfd_send_signal, -1, SIGUSR1, NULL, 0)));
    printf(" %s\n", error(RAW(SYS_pidfd_send_signal, 1, SIGUSR1, NULL, 0)));
    int pidfd = (int)RAW(SYS_pidfd_open, me, 0);
    printf("descriptor: %s", error(RAW(SYS_pidfd_send_signal, pidfd, SIGUSR1, NULL, 0)));
    printf(" %s", error(RAW(SYS_pidfd_send_signal, pidfd, 65, NULL, 0)));
    printf(" %s\n", error(RAW(SYS_pidfd_send_signal, pidfd, SIGUSR1, NULL, 1u << 30)));
    printf("information: %s", error(RAW(SYS_rt_sigqueueinfo, me, SIGUSR1, NULL)));
    printf(" %s", error(RAW(SYS_rt_sigqueueinfo, me, SIGUSR1, &info)));
    printf(" %s\n", error(RAW(SYS_rt_tgsigqueueinfo, me, tid, SIGUSR1, &info)));
    setpgid(0, 0);
    printf("own group: %s %s\n", error(kill(0, SIGUSR1)), error(kill(-me, SIGUSR1)));
    int status;
    pid_t child = fork();
    if (child == 0) for (;;) pause();
    printf("child: %s", error(kill(child, SIGTERM)));
    siginfo_t ended;
    waitid(P_PID, (id_t)child, &ended, WEXITED | WNOWAIT);
    printf(", ended, not reaped: %s", error(kill(child, SIGTERM)));
    waitpid(child, &status, 0);
    printf(", by %d, reaped: %s\n", WTERMSIG(status), error(kill(child, SIGTERM)));
    return 0;
}

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    number = argc > 2 ? atoi(argv[2]) : 0;
    umask(022);
    if (HOW("race")) return race_for_names();
    if (HOW("crowd")) return crowd();
    if (HOW("own")) return own_places();
    if (HOW("signals")) return signals(number & 2 ? SA_RESTART : 0);
    if (HOW("stopped")) return stopped();
    if (HOW("fifo-read")) return fifo(O_RDONLY, 0, 1500);
    if (HOW("fifo-write")) return fifo(O_WRONLY, 0, 1500);
    if (HOW("fifo-read-restart")) return fifo(O_RDONLY, 1, 600);
    if (HOW("fifo-write-restart")) return fifo(O_WRONLY, 1, 600);
    if (HOW("descriptors")) return no_descriptor_left();
    if (HOW("size")) return file_size_limit();
    if (HOW("append")) return append();
    if (HOW("locks")) return locks();
    if (HOW("leases")) return leases();
    if (HOW("sparse")) return sparse();
    if (HOW("no-way")) return no_way();
    if (HOW("no-room")) return no_room();
    if (HOW("lower-layer")) return lower_layer();
    if (HOW("hidden")) return hidden();
    if (HOW("handed-in")) return handed_in();
    if (HOW("sending")) return sending();
    if (HOW("itself")) return about_itself();
    return 2;
}
