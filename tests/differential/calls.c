/* Random sequences of path calls, and what each one gave.
 *
 * calls run|run-without-o_path SEED ROUNDS CALLS [ROUND CALL...]: each round lays out a tree of its own below the working directory, moves
 * into it and makes CALLS calls. Every call is drawn from the seed, the round and its own number alone: leaving others
 * out (by naming one round and the calls to keep) does not change it.
 * calls dump DIR: one line for each entry of a tree.
 *
 * No path leaves the tree: names are relative, `..` follows a name, and what is below /proc and /dev are descriptors. */
#include "attempt.h"
#include <dirent.h>
#include <linux/capability.h>
#include <linux/openat2.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <utime.h>

/* Newer than some C libraries. */
#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif

#define SLOT 100 /* the descriptors that calls may name have fixed numbers from here */
#define SLOTS 10
#define PAGE 4096
#define ROOM (4 * PAGE)

static uint64_t state;
static uint64_t draw(void) {
    uint64_t z = (state += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}
static int below(int n) { return (int)(draw() % (uint64_t)n); }
static int one_in(int n) { return below(n) == 0; }
#define COUNT(list) ((int)(sizeof(list) / sizeof *(list)))
#define PICK(list) ((list)[below(COUNT(list))])

/* The call under way: its number and arguments, its text, and how it is made. */
enum how { PLAIN, THREAD, OWN_CWD, OWN_FILES, FORK, VFORK, MOVED, GONE, HOWS };
static const char *HOW_NAMES[] = {"", "thread ", "thread+cwd ", "thread+files ", "fork ", "vfork ", "chdir ", "gone "};
static struct {
    long number, args[6];
    char text[3000];
    int how, opens, binds, keep, type;
} call;
/* What it gave; shared with children. */
static struct { long got; int error, lowest; char facts[400]; } *result;

static void say(const char *format, ...) {
    size_t used = strlen(call.text);
    va_list args;
    va_start(args, format);
    vsnprintf(call.text + used, sizeof call.text - used, format, args);
    va_end(args);
}

static void say_bytes(const char *bytes, size_t length) {
    for (size_t i = 0; i < length && i < 48; i++) {
        unsigned char c = (unsigned char)bytes[i];
        if (c >= 32 && c < 127 && c != '"') say("%c", c); else say("\\x%02x", c);
    }
    if (length > 48) say("...%s[%zu]", length > 60 ? bytes + length - 12 : "", length);
}

/* Places in memory: three pages that are there, one that is not. */
static char *room[3];
static void make_rooms(void) {
    for (int i = 0; i < 3; i++) {
        room[i] = mmap(NULL, ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        mprotect(room[i] + 3 * PAGE, PAGE, PROT_NONE);
    }
}

static char long_name[257], longer_name[258];
static const char *NAMES[] = {
    "f", "f", "a", "a", "a/f", "a/f", "a/b", "a/b/g", "e", "x", "r", "n", "ro", "ro/f", "ro/new", "no", "no/f", "p", "l",
    "l", "ld", "ld/f", "ld/b", "ld/new1", "dang", "danga", "loop1", "loop1/f", "chain", "chain2", "self", "self/f", "sg",
    "sg/new", "sg/d", "acl", "acl/new", "acl/d", "sk", "h1", "h2", "h2", "st", "st/f", "\xff\xfe", "a/\xc3", "new1",
    "new1", "new2", "new2", "new3", "a/new1", "a/new2", "e/new1", "new1/x", "new2/new1", "f/x", "big", "lp", "lp2", "le",
    "lfd", "lfd/f", "ldd/f",
};

/* One path: a name, dressed up. */
static size_t draw_path(char *to) {
    static const char *BEFORE[] = {"./", "a/../", "self/", ".//", "self/self/", "ld/../", "e/../", "a/b/../../", "a/./../"};
    static const char *AFTER[] = {"/", "/", "/", "//", "/.", "/./", "/..", "/../", "/../f", "/../new1"};
    static const char *FDS[] = {"/proc/self/fd/", "/dev/fd/", "/proc/thread-self/fd/"};
    const char *name = PICK(NAMES);
    char fd[40];
    *to = 0;
    switch (below(60)) {
    case 0: return 0;
    case 1: name = "."; break;
    case 2: name = long_name; break;
    case 3: name = longer_name; break;
    case 4: name = "a/.."; break;
    case 5: case 6: case 7: case 8:
        snprintf(fd, sizeof fd, "%s%d", PICK(FDS), SLOT + below(SLOTS));
        if (one_in(3)) name = fd; else { strcpy(to, fd); strcat(to, "/"); }
        break;
    case 9: strcpy(to, "/proc/self/cwd/"); break;
    case 10: name = "./"; break;
    case 11: name = one_in(4) ? ".." : "self/."; break;
    default: break;
    }
    if (!*to && *name != '/' && one_in(5)) strcpy(to, PICK(BEFORE));
    strcat(to, name);
    if (one_in(7)) strcat(to, PICK(AFTER));
    if (*to != '/' && one_in(50)) { /* the longest path, and one byte more */
        size_t want = one_in(2) ? 4095 : 4096, length = strlen(to);
        char kept[600];
        strcpy(kept, to);
        for (*to = 0; length + 2 <= want; length += 2) strcat(to, "./");
        if (length < want) strcat(to, "/"), length++;
        if (*to == '/') *to = '.';
        else if (to[strlen(to) - 1] != '/') strcat(to, "/");
        strcat(to, kept);
    }
    return strlen(to);
}

/* Puts a text into memory in one of several ways and gives the address. */
static long put(int at, const char *text, size_t length) {
    char *start = room[at] + 64;
    switch (below(90)) {
    case 0: say("NULL"); return 0;
    case 1: say("UNMAPPED"); return (long)(room[at] + 3 * PAGE + 8);
    case 2: say("KERNEL"); return (long)0xffff888000000000;
    case 3: say("UNENDED:"); start = room[at] + 3 * PAGE - length; break;
    case 4: case 5: case 6: say("LAST:"); start = room[at] + 3 * PAGE - length - 1; break;
    case 7: case 8: case 9: start = room[at] + PAGE - length / 2; if (length < PAGE) say("ACROSS:"); else start = room[at]; break;
    default: break;
    }
    memcpy(start, text, length);
    if (start + length < room[at] + 3 * PAGE) start[length] = 0;
    say("\"");
    say_bytes(text, length);
    say("\"");
    return (long)start;
}

static long path_at(int at) {
    static char text[2 * PAGE];
    return put(at, text, draw_path(text));
}
static long garbage(void) { return one_in(12) ? 0x5a5a00000000 : 0; } /* above an int: the kernel looks away */

static long dir(void) {
    if (one_in(3)) {
        int slot = SLOT + below(SLOTS);
        say("%d, ", slot);
        return slot | garbage();
    }
    if (one_in(40)) { say("-1, "); return -1; }
    say("CWD, ");
    return AT_FDCWD;
}

static long mode(void) {
    static const int MODES[] = {0644, 0666, 0600, 0755, 0777, 0400, 0, 01777, 0700, 0222, 0711};
    int drawn = PICK(MODES);
    say(", %#o", (unsigned)drawn);
    return drawn | garbage();
}

static long open_flags(int strict) {
    static const int MORE[] = {
        O_EXCL, O_TRUNC, O_TRUNC, O_APPEND, O_NOFOLLOW, O_NOFOLLOW, O_DIRECTORY, O_DIRECTORY, O_PATH, O_TMPFILE, O_TMPFILE,
        O_NOATIME, O_NONBLOCK, O_SYNC, O_CLOEXEC, O_NOCTTY, O_DSYNC, O_LARGEFILE, 0x8000000, O_ASYNC,
    };
    int flags = below(3) + one_in(30);
    if (one_in(2)) flags |= O_CREAT;
    for (int more = below(4); more > 0; more--) flags |= PICK(MORE);
    if (flags & O_TMPFILE && !strict && one_in(2)) flags = O_TMPFILE | O_RDWR | (flags & O_EXCL);
    say(", %#o", (unsigned)flags);
    return flags;
}

static long at_flags(const int *known, int count) {
    static const int ODD[] = {0x1, 0x80, 0x800, 0x10000, 0x2000, -1};
    int flags = one_in(20) ? PICK(ODD) : known[below(count)];
    say(", %#x", (unsigned)flags);
    return (long)(unsigned)flags | garbage();
}
#define AT(...) at_flags((const int[]){__VA_ARGS__}, COUNT(((int[]){__VA_ARGS__})))

static long owner(long own) {
    int keep = one_in(3);
    if (keep) say(", -1"); else say(", own");
    return keep ? 0xffffffff : own | garbage();
}

static long times(int kind) { /* 1 utimbuf, 2 timevals, 3 timespecs */
    long *place = (long *)(room[2] + 3 * PAGE - (one_in(8) ? 32 : 512));
    if (kind == 1) place = (long *)(room[2] + 3 * PAGE - 16);
    if (one_in(6)) { say(", NULL"); return 0; }
    if (one_in(30)) { say(", UNMAPPED"); return (long)(room[2] + 3 * PAGE); }
    say(", {");
    if (kind == 1) {
        for (int i = 0; i < 2; i++) say("%ld ", place[i] = 1000000000 + below(1000));
    } else for (int i = 0; i < 4; i += 2) {
        place[i] = one_in(10) ? -5 : 1000000000 + below(1000);
        place[i + 1] = below(900000);
        if (one_in(12)) place[i + 1] = one_in(2) ? -1 : 1000000;
        if (kind == 3) switch (below(8)) {
            case 0: place[i + 1] = UTIME_NOW; break;
            case 1: case 2: place[i + 1] = UTIME_OMIT; break;
            case 3: place[i + 1] = one_in(4) ? 1000000000 : 999999999; break;
        }
        say("%ld.%ld ", place[i], place[i + 1]);
    }
    say("}");
    return (long)place;
}

static long xattr_name(void) {
    static char long_attribute[300];
    static const char *LIST[] = {"user.a", "user.a", "user.a", "user.b", "user.b", "user.", "", "trusted.x", "nosuch.x", "plain",
                                 "security.x", "system.x", long_attribute, long_attribute};
    const char *name = PICK(LIST);
    memset(long_attribute, 'u', 299);
    memcpy(long_attribute, "user.", 5);
    long_attribute[255 + below(2)] = 0;
    say(", ");
    return put(1, name, strlen(name));
}

static long xattr_size;
static long xattr_value(void) {
    static const int SIZES[] = {0, 1, 5, 100, 65536, 65537};
    xattr_size = one_in(3) ? PICK(SIZES) : 3;
    say(", %ld", xattr_size);
    if (one_in(25)) { say(" of NULL"); return 0; }
    if (one_in(25)) { say(" of UNMAPPED"); return (long)(room[2] + 3 * PAGE - 1); }
    static char value[70000];
    memset(value, 'v' + below(3), sizeof value);
    return (long)value;
}
static long xattr_flags(void) {
    static const int FLAGS[] = {0, 0, 0, XATTR_CREATE, XATTR_REPLACE, 3, 4};
    int flags = PICK(FLAGS);
    say(", %d", flags);
    return flags;
}

static long length(void) {
    static const long LENGTHS[] = {0, 3, 100, 5000, 100000, -1, 1l << 62};
    long drawn = PICK(LENGTHS);
    say(", %ld", drawn);
    return drawn;
}

static long node_mode(void) {
    static const int KINDS[] = {S_IFIFO, S_IFIFO, S_IFREG, S_IFREG, 0, S_IFSOCK, S_IFSOCK, S_IFDIR, S_IFLNK, S_IFCHR, S_IFBLK, 0170000};
    int kind = PICK(KINDS);
    say(", %#o", (unsigned)kind);
    return kind | mode();
}

static long how_structure(void) {
    static const long RESOLVE[] = {RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH, RESOLVE_BENEATH,
                                   RESOLVE_IN_ROOT, RESOLVE_IN_ROOT, 0x40, RESOLVE_BENEATH | RESOLVE_IN_ROOT};
    static const int SIZES[] = {0, 16, 32, 48, PAGE, PAGE + 8, 23};
    uint64_t *how = (uint64_t *)room[2];
    memset(how, 0, PAGE);
    long size = 24;
    how[0] = (uint64_t)open_flags(1);
    if (one_in(15)) { how[0] |= 1ull << 40; say("|1<<40"); }
    if (how[0] & (O_CREAT | 020000000) || one_in(15)) how[1] = (uint64_t)mode() & 0xffffffff;
    if (one_in(2)) { how[2] = (uint64_t)PICK(RESOLVE); if (one_in(4)) how[2] |= (uint64_t)PICK(RESOLVE); }
    if (one_in(8)) { size = PICK(SIZES); if (one_in(4)) how[5] = 1; }
    if (one_in(50) && how[0] & O_CREAT) how[2] |= RESOLVE_CACHED;
    say(", resolve %#lx, size %ld", (long)how[2], size);
    call.args[3] = size;
    return one_in(60) ? (say(" UNMAPPED"), (long)(room[2] + 3 * PAGE - 8)) : (long)how;
}

#define PATH(n) path_at(n)
#define NEXT (say(", "))

static void draw_call(void) {
    long *a = call.args;
    memset(&call, 0, sizeof call);
    call.how = one_in(2) ? PLAIN : below(HOWS);
    call.keep = one_in(2) ? SLOT + 6 + below(4) : 0;
#define CALL(name) call.number = SYS_##name; say("%s%s(", HOW_NAMES[call.how], #name)
    switch (below(44)) {
    case 0: case 1: CALL(open); a[0] = PATH(0); a[1] = open_flags(0); a[2] = mode(); call.opens = 1; break;
    case 2: case 3: case 4: case 5: CALL(openat); a[0] = dir(); a[1] = PATH(0); a[2] = open_flags(0); a[3] = mode(); call.opens = 2; break;
    case 6: CALL(creat); a[0] = PATH(0); a[1] = mode(); call.opens = 1; break;
    case 7: case 8: case 9: CALL(openat2); a[0] = dir(); a[1] = PATH(0); a[2] = how_structure(); call.opens = 3; break;
    case 10: CALL(unlink); a[0] = PATH(0); break;
    case 11: CALL(rmdir); a[0] = PATH(0); break;
    case 12: CALL(unlinkat); a[0] = dir(); a[1] = PATH(0); a[2] = AT(0, 0, AT_REMOVEDIR, AT_REMOVEDIR, AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH); break;
    case 13: CALL(rename); a[0] = PATH(0); NEXT; a[1] = PATH(1); break;
    case 14: CALL(renameat); a[0] = dir(); a[1] = PATH(0); NEXT; a[2] = dir(); a[3] = PATH(1); break;
    case 15: case 16: CALL(renameat2); a[0] = dir(); a[1] = PATH(0); NEXT; a[2] = dir(); a[3] = PATH(1); a[4] = AT(0, 1, 1, 2, 2, 4, 3, 5, 6, 8); break;
    case 17: CALL(link); a[0] = PATH(0); NEXT; a[1] = PATH(1); break;
    case 18: case 19: CALL(linkat); a[0] = dir(); a[1] = PATH(0); NEXT; a[2] = dir(); a[3] = PATH(1);
        a[4] = AT(0, 0, AT_SYMLINK_FOLLOW, AT_SYMLINK_FOLLOW, AT_EMPTY_PATH, AT_EMPTY_PATH | AT_SYMLINK_FOLLOW, AT_SYMLINK_NOFOLLOW); break;
    case 20: CALL(symlink); a[0] = PATH(0); NEXT; a[1] = PATH(1); break;
    case 21: CALL(symlinkat); a[0] = PATH(0); NEXT; a[1] = dir(); a[2] = PATH(1); break;
    case 22: CALL(mkdir); a[0] = PATH(0); a[1] = mode(); break;
    case 23: CALL(mkdirat); a[0] = dir(); a[1] = PATH(0); a[2] = mode(); break;
    case 24: CALL(mknod); a[0] = PATH(0); a[1] = node_mode(); a[2] = one_in(3) ? 0x103 : 0; break;
    case 25: CALL(mknodat); a[0] = dir(); a[1] = PATH(0); a[2] = node_mode(); a[3] = one_in(3) ? 0x103 : 0; break;
    case 26: CALL(truncate); a[0] = PATH(0); a[1] = length(); break;
    case 27: CALL(chmod); a[0] = PATH(0); a[1] = mode(); break;
    case 28: CALL(fchmodat); a[0] = dir(); a[1] = PATH(0); a[2] = mode(); break;
    case 29: CALL(fchmodat2); a[0] = dir(); a[1] = PATH(0); a[2] = mode(); a[3] = AT(0, AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, AT_REMOVEDIR); break;
    case 30: CALL(chown); a[0] = PATH(0); a[1] = owner(geteuid()); a[2] = owner(getegid()); break;
    case 31: CALL(lchown); a[0] = PATH(0); a[1] = owner(geteuid()); a[2] = owner(getegid()); break;
    case 32: CALL(fchownat); a[0] = dir(); a[1] = PATH(0); a[2] = owner(geteuid()); a[3] = owner(getegid());
        a[4] = AT(0, AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, AT_REMOVEDIR); break;
    case 33: CALL(utime); a[0] = PATH(0); a[1] = times(1); break;
    case 34: if (one_in(2)) { CALL(utimes); a[0] = PATH(0); a[1] = times(2); }
             else { CALL(futimesat); a[0] = dir(); a[1] = PATH(0); a[2] = times(2); } break;
    case 35: case 36: CALL(utimensat); a[0] = dir(); if (one_in(6)) say("NULL"); else a[1] = PATH(0); a[2] = times(3);
        a[3] = AT(0, 0, AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, AT_REMOVEDIR); break;
    case 37: CALL(setxattr); a[0] = PATH(0); a[1] = xattr_name(); a[2] = xattr_value(); a[3] = xattr_size; a[4] = xattr_flags(); break;
    case 38: CALL(lsetxattr); a[0] = PATH(0); a[1] = xattr_name(); a[2] = xattr_value(); a[3] = xattr_size; a[4] = xattr_flags(); break;
    case 39: CALL(removexattr); a[0] = PATH(0); a[1] = xattr_name(); break;
    case 40: CALL(lremovexattr); a[0] = PATH(0); a[1] = xattr_name(); break;
    case 41: CALL(bind); call.binds = 1; call.type = one_in(2) ? SOCK_STREAM : SOCK_SEQPACKET; {
        struct sockaddr_un *name = (void *)room[2];
        static char text[2 * PAGE];
        size_t size = draw_path(text);
        memset(name, 0, sizeof *name);
        name->sun_family = AF_UNIX;
        if (size == 0 || size > 107) size = 0, text[size++] = 'q', text[size] = 0;
        memcpy(name->sun_path, text, size);
        say_bytes(text, size);
        a[1] = (long)name;
        a[2] = (long)(offsetof(struct sockaddr_un, sun_path) + size) + one_in(2);
        if (one_in(20)) a[2] = 200;
        say(", %ld", a[2] == 200 ? 200 : a[2] - (long)size);
        } break;
    case 42: case 43: {
        int slot = SLOT + below(SLOTS);
        switch (below(5)) {
        case 0: CALL(fchmod); say("%d", slot); a[0] = slot | garbage(); a[1] = mode(); break;
        case 1: CALL(fchown); say("%d", slot); a[0] = slot; a[1] = owner(geteuid()); a[2] = owner(getegid()); break;
        case 2: CALL(fsetxattr); say("%d", slot); a[0] = slot; a[1] = xattr_name(); a[2] = xattr_value(); a[3] = xattr_size; a[4] = xattr_flags(); break;
        case 3: CALL(fremovexattr); say("%d", slot); a[0] = slot; a[1] = xattr_name(); break;
        case 4: CALL(utimensat); say("%d, NULL", slot); a[0] = slot; a[2] = times(3); break;
        }
        } break;
    }
    say(")");
}

/* Without O_NONBLOCK a FIFO would wait for its other end. */
static void never_wait(void) {
    struct stat st;
    long *a = call.args;
    const char *path = (const char *)a[call.opens == 1 ? 0 : 1];
    int from = call.opens == 1 ? AT_FDCWD : (int)a[0];
    if (!call.opens || fstatat(from, path, &st, 0) || !S_ISFIFO(st.st_mode)) return;
    switch (call.number) {
    case SYS_open: a[1] |= O_NONBLOCK; break;
    case SYS_openat: a[2] |= O_NONBLOCK; break;
    case SYS_openat2: if (a[2] == (long)room[2]) *(uint64_t *)a[2] |= O_NONBLOCK; break;
    case SYS_creat: call.number = SYS_open; a[2] = a[1]; a[1] = O_CREAT | O_WRONLY | O_TRUNC | O_NONBLOCK; break;
    }
}

static void describe(int fd) {
    char bytes[9] = "", *to = result->facts;
    struct stat st;
    int flags = fcntl(fd, F_GETFL), used;
    if (fstat(fd, &st)) { strcpy(to, "no fstat"); return; }
    used = sprintf(to, "%s mode %#o nlink %ld flags %#o%s", fd == result->lowest ? "fd" : "fd that is not the lowest", (unsigned)st.st_mode,
                   (long)st.st_nlink, (unsigned)flags, fcntl(fd, F_GETFD) & FD_CLOEXEC ? " cloexec" : "");
    if (!S_ISREG(st.st_mode)) return;
    long got = pread(fd, bytes, 8, 0);
    used += sprintf(to + used, " size %ld read %ld %s", (long)st.st_size, got < 0 ? -errno : got, st.st_size > 1000 ? "" : bytes);
    for (char *byte = to; *byte; byte++) if (*byte == '\n') *byte = '~';
    if (flags & O_DSYNC) return; /* a disk would take its time */
    got = write(fd, "XY", 2);
    sprintf(to + used, " wrote %ld at %ld", got < 0 ? -errno : got, (long)lseek(fd, 0, SEEK_CUR));
}

/* Makes the call; in a child of vfork too, so nothing here is undone at the end. */
static void perform(void) {
    long *a = call.args;
    never_wait();
    if (call.binds) a[0] = socket(AF_UNIX, call.type | SOCK_CLOEXEC, 0);
    int lowest = dup(0);
    close(lowest);
    result->lowest = lowest;
    errno = 0;
    result->got = syscall(call.number, a[0], a[1], a[2], a[3], a[4], a[5]);
    result->error = errno;
    if (call.binds) close((int)a[0]);
    if (call.opens && result->got >= 0) {
        int fd = (int)result->got;
        describe(fd);
        if (call.keep) dup2(fd, call.keep);
        close(fd);
        result->got = 0;
    }
}

static void *in_thread(void *unused) {
    if (call.how == OWN_CWD && (unshare(CLONE_FS) || chdir("a"))) result->error = errno;
    if (call.how == OWN_FILES && (unshare(CLONE_FILES) || dup2(SLOT + 1, SLOT) < 0)) result->error = errno;
    perform();
    return unused;
}

static void *in_removed(void) {
    if (mkdir("gone", 0755) || chdir("gone") || rmdir("../gone")) return "";
    return NULL;
}

static void make(void) {
    pthread_t thread;
    pid_t pid = -1;
    memset(result, 0, sizeof *result);
    switch (call.how) {
    case THREAD: case OWN_CWD: case OWN_FILES:
        pthread_create(&thread, NULL, in_thread, NULL);
        pthread_join(thread, NULL);
        return;
    case VFORK:
        pid = vfork();
        if (pid == 0) { perform(); _exit(0); }
        break;
    case FORK: case MOVED: case GONE:
        pid = fork();
        if (pid == 0) {
            if (call.how == MOVED && chdir("a")) _exit(1);
            if (call.how == GONE && in_removed()) _exit(1);
            perform();
            _exit(0);
        }
        break;
    default: perform(); return;
    }
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status) { result->got = -1; result->error = ECHILD; }
}

static void tell(int round, int number, int mask) {
    const char *error = result->got < 0 ? strerrorname_np(result->error) : "";
    printf("%d.%d umask %03o %s = %ld %s%s\n", round, number, (unsigned)mask, call.text, result->got, error ? error : "?", result->facts);
}

/* The tree. */
static void fill(const char *name, const char *text, mode_t mode) {
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0 || write(fd, text, strlen(text)) < 0 || fchmod(fd, mode)) { perror(name); exit(9); }
    close(fd);
}
static void must(const char *what, long got) { if (got < 0) { perror(what); exit(9); } }

static void socket_at(const char *name) {
    struct sockaddr_un to = {AF_UNIX, ""};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    strcpy(to.sun_path, name);
    must("bind", bind(fd, (struct sockaddr *)&to, sizeof to));
    close(fd);
}

/* A default ACL: user::rwx user:OWN:r-x group::rwx mask::r-x other::---, as acl(5) lays it out in an attribute. */
static void default_acl(const char *name) {
    struct { uint32_t version; struct { uint16_t tag, rights; uint32_t id; } entry[5]; } acl = {2, {
        {1, 7, -1u}, {2, 5, geteuid()}, {4, 7, -1u}, {0x10, 5, -1u}, {0x20, 0, -1u}}};
    int failed = setxattr(name, "system.posix_acl_default", &acl, sizeof acl, 0);
    printf("default ACL: %s\n", failed ? strerrorname_np(errno) : "set");
}

static int o_path = O_PATH; /* 0 where nothing can be opened with it */

static void slot(int number, int fd) {
    must("slot", fd);
    must("dup2", dup2(fd, SLOT + number));
    close(fd);
}

static void lay_out(int round) {
    char top[40];
    snprintf(top, sizeof top, "r%d", round);
    umask(022);
    must(top, mkdir(top, 0755)); must(top, chdir(top));
    must("s", mkdir("s", 0755)); must("s", chdir("s"));
    must("t", mkdir("t", 0755)); must("t", chdir("t"));
    const char *dirs[] = {"a", "a/b", "e", "ro", "no", "sg", "acl", "st"};
    for (int i = 0; i < COUNT(dirs); i++) must(dirs[i], mkdir(dirs[i], 0755));
    fill("f", "file\n", 0644); fill("a/f", "a file\n", 0644); fill("a/b/g", "g", 0600); fill("x", "#!/bin/true\n", 0755);
    fill("r", "read\n", 0444); fill("n", "none\n", 0); fill("ro/f", "ro\n", 0644); fill("no/f", "no\n", 0644);
    fill("st/f", "st\n", 0644); fill("h1", "hard\n", 0644); fill("\xff\xfe", "odd\n", 0644); fill("big", "", 0644);
    must("big", truncate("big", 50000));
    must("h2", link("h1", "h2")); must("p", mkfifo("p", 0644));
    const char *links[][2] = {{"f", "l"}, {"a", "ld"}, {"nothing", "dang"}, {"a/nothing", "danga"}, {"loop2", "loop1"},
        {"loop1", "loop2"}, {"l", "chain"}, {"self/ld/../chain", "chain2"}, {".", "self"}, {"p", "lp"}, {"/proc/self/fd/102", "lp2"},
        {"e/", "le"}, {"/dev/fd/100", "lfd"}, {"ld/", "ldd"}};
    for (int i = 0; i < COUNT(links); i++) must(links[i][1], symlink(links[i][0], links[i][1]));
    socket_at("sk");
    default_acl("acl");
    must("sg", chmod("sg", 02775)); must("st", chmod("st", 01777)); must("ro", chmod("ro", 0555)); must("no", chmod("no", 0));
    for (int i = 0; i < SLOTS; i++) close(SLOT + i);
    slot(0, open(".", O_RDONLY | O_DIRECTORY));
    slot(1, open("a", o_path));
    slot(2, open("f", O_RDWR));
    slot(3, open("a/f", o_path));
    slot(5, open(".", O_TMPFILE | O_RDWR, 0640));
    if (o_path) slot(6, open("l", O_PATH | O_NOFOLLOW));
    fill("unlinked", "unlinked\n", 0644);
    slot(7, open("unlinked", O_RDWR));
    must("unlinked", unlink("unlinked"));
    slot(8, open("a/b", O_RDONLY));
}

static void drop_capabilities(void) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2] = {{0, 0, 0}, {0, 0, 0}};
    for (int i = 0; i <= CAP_LAST_CAP; i++) prctl(PR_CAPBSET_DROP, i, 0, 0, 0);
    must("capset", syscall(SYS_capset, &header, none));
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

static int wanted(int number, int argc, char **argv) {
    for (int i = 6; i < argc; i++) if (atoi(argv[i]) == number) return 1;
    return argc <= 6;
}

static int run(int argc, char **argv) {
    static const int MASKS[] = {022, 022, 022, 0, 077, 0777, 002, 027};
    uint64_t seed = strtoull(argv[2], NULL, 10);
    int rounds = atoi(argv[3]), calls = atoi(argv[4]), home = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    must("home", home);
    home = fcntl(home, F_DUPFD_CLOEXEC, SLOT + SLOTS);
    close(3);
    drop_capabilities();
    for (int round = 0; round < rounds; round++) {
        if (argc > 5 && atoi(argv[5]) != round) continue;
        must("home", fchdir(home));
        lay_out(round);
        for (int number = 0; number < calls; number++) {
            if (!wanted(number, argc, argv)) continue;
            state = (seed << 32) ^ ((uint64_t)round << 16) ^ (uint64_t)number;
            draw();
            int mask = PICK(MASKS);
            draw_call();
            umask((mode_t)mask);
            make();
            tell(round, number, mask);
        }
    }
    return 0;
}

/* The dump. */
static struct { dev_t device; ino_t inode; int number; } seen[100000];
static int seen_count;
static int group(const struct stat *st) {
    for (int i = 0; i < seen_count; i++) if (seen[i].inode == st->st_ino && seen[i].device == st->st_dev) return seen[i].number;
    if (seen_count < COUNT(seen)) { seen[seen_count].device = st->st_dev; seen[seen_count].inode = st->st_ino; seen[seen_count].number = seen_count; }
    return seen_count++;
}

static void dump_bytes(const char *bytes, size_t length) {
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)bytes[i];
        if (c > 32 && c < 127 && c != '\\') putchar(c); else printf("\\x%02x", c);
    }
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void dump_attributes(const char *path) {
    char list[4096], *names[200], value[65536];
    ssize_t size = llistxattr(path, list, sizeof list);
    int count = 0;
    for (char *name = list; name < list + (size > 0 ? size : 0); name += strlen(name) + 1) names[count++] = name;
    qsort(names, (size_t)count, sizeof *names, by_name);
    for (int i = 0; i < count; i++) {
        ssize_t length = lgetxattr(path, names[i], value, sizeof value);
        printf(" %.20s[%zu]=", names[i], strlen(names[i]));
        if (length > 60) printf("%zd*%c", length, *value); else for (ssize_t k = 0; k < length; k++) printf("%02x", (unsigned char)value[k]);
    }
}

static void dump(const char *path, const char *shown) {
    struct stat st;
    if (lstat(path, &st)) { printf("%s: gone\n", shown); return; }
    dump_bytes(shown, strlen(shown));
    printf(" %06o %u:%u", (unsigned)st.st_mode, st.st_uid, st.st_gid);
    if (!S_ISDIR(st.st_mode)) printf(" size %ld", (long)st.st_size);
    if (st.st_nlink > 1 && !S_ISDIR(st.st_mode)) printf(" nlink %ld group %d", (long)st.st_nlink, group(&st));
    if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode)) printf(" device %lx", (long)st.st_rdev);
    /* Times that were set are long ago. */
    if (st.st_mtime < 1500000000) printf(" mtime %ld.%09ld", (long)st.st_mtime, st.st_mtim.tv_nsec);
    if (st.st_atime < 1500000000) printf(" atime %ld.%09ld", (long)st.st_atime, st.st_atim.tv_nsec);
    dump_attributes(path);
    if (S_ISLNK(st.st_mode)) {
        char text[PAGE + 1];
        ssize_t length = readlink(path, text, sizeof text);
        printf(" -> ");
        dump_bytes(text, length > 80 ? 80 : (size_t)(length > 0 ? length : 0));
    }
    if ((S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) && access(path, S_ISDIR(st.st_mode) ? R_OK | W_OK | X_OK : R_OK))
        chmod(path, (st.st_mode & 07777) | 0700);
    if (S_ISREG(st.st_mode)) {
        char *bytes = calloc(1, 65536);
        uint64_t hash = 14695981039346656037u;
        int fd = open(path, O_RDONLY | O_NONBLOCK);
        ssize_t got = fd < 0 ? -1 : read(fd, bytes, 65536);
        for (ssize_t i = 0; i < got; i++) hash = (hash ^ (unsigned char)bytes[i]) * 1099511628211u;
        printf(" content %lx%s", (long)hash, got < 0 ? " unread" : "");
        close(fd);
        free(bytes);
    }
    putchar('\n');
    if (!S_ISDIR(st.st_mode)) return;
    char *names[3000];
    int count = 0;
    DIR *stream = opendir(path);
    for (struct dirent *entry; stream && (entry = readdir(stream)) && count < COUNT(names);)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..")) names[count++] = strdup(entry->d_name);
    if (stream) closedir(stream);
    qsort(names, (size_t)count, sizeof *names, by_name);
    for (int i = 0; i < count; i++) {
        char *inner = malloc(strlen(path) + strlen(names[i]) + 2), *text = malloc(strlen(shown) + strlen(names[i]) + 2);
        sprintf(inner, "%s/%s", path, names[i]);
        sprintf(text, "%s/%s", shown, names[i]);
        dump(inner, text);
        free(inner); free(text); free(names[i]);
    }
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    if (argc == 3 && HOW("dump")) { dump(argv[2], "."); return 0; }
    if (argc < 5 || !(HOW("run") || HOW("run-without-o_path"))) return 2;
    if (HOW("run-without-o_path")) o_path = 0;
    memset(long_name, 'n', 255);
    memset(longer_name, 'm', 256);
    result = mmap(NULL, sizeof *result, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    make_rooms();
    return run(argc, argv);
}
