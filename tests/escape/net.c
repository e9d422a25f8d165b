/* Ways to what a rule keeps out of reach: net FRIEND PORT ENEMY PORT WAY...
 *
 * FRIEND may be reached, ENEMY may not. A way is STATE:ACT: a socket is brought into STATE, then ACT is tried on it. Each
 * is tried in a child of its own, which prints `WAY: done` or `WAY: ERROR`. What is sent is the way's name, so whoever
 * gets it can tell how it came. */
#include "attempt.h"
#include <arpa/inet.h>
#include <linux/io_uring.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/sendfile.h>

struct place { union { struct sockaddr any; struct sockaddr_in v4; struct sockaddr_in6 v6; } at; socklen_t length; };
static struct place friend_, enemy;
static const char *way;

static struct place place(const char *address, const char *port) {
    struct place found = { .length = sizeof found.at.v4 };
    found.at.v4.sin_family = AF_INET;
    found.at.v4.sin_port = htons(atoi(port));
    if (inet_pton(AF_INET, address, &found.at.v4.sin_addr) == 1) return found;
    memset(&found, 0, sizeof found);
    found.length = sizeof found.at.v6;
    found.at.v6.sin6_family = AF_INET6;
    found.at.v6.sin6_port = htons(atoi(port));
    if (inet_pton(AF_INET6, address, &found.at.v6.sin6_addr) == 1) return found;
    exit(98);
}

/* Setting the scene must work, or the act proves nothing. */
static void must(long rc, const char *what) {
    if (rc >= 0) return;
    printf("%s: cannot %s: %s\n", way, what, strerrorname_np(errno));
    exit(1);
}

static int reach(int fd, struct place to) { return connect(fd, &to.at.any, to.length); }

static int dissolve(int fd) {
    struct sockaddr none = { .sa_family = AF_UNSPEC };
    return connect(fd, &none, sizeof none);
}

/* The socket's state before the act. */

static int new(int type) {
    int fd = socket(friend_.at.any.sa_family, type, 0), on = 1;
    must(fd, "make a socket");
    setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof on);
    return fd;
}

static int state(const char *name) {
    int fd;
    struct place closed = friend_;
    if (!strcmp(name, "tcp")) return new(SOCK_STREAM);
    if (!strcmp(name, "udp")) return new(SOCK_DGRAM);
    if (!strcmp(name, "connected") || !strcmp(name, "dissolved")) {
        must(reach(fd = new(SOCK_STREAM), friend_), "reach the friend");
        if (*name == 'd') must(dissolve(fd), "dissolve");
        return fd;
    }
    if (!strcmp(name, "failed") || !strcmp(name, "bound-failed")) {
        struct place any = friend_;
        fd = new(SOCK_STREAM | SOCK_NONBLOCK);
        memset((char *)&any.at + 4, 0, any.length - 4);
        any.at.v4.sin_port = htons(20900);
        if (*name == 'b') must(bind(fd, &any.at.any, any.length), "bind");
        closed.at.v4.sin_port = htons(81);
        reach(fd, closed);
        poll(&(struct pollfd){ .fd = fd, .events = POLLOUT }, 1, 5000);
        reach(fd, closed); /* Takes the error: from here on it could be connected anew. */
        must(fcntl(fd, F_SETFL, 0), "make it blocking");
        return fd;
    }
    fd = new(SOCK_DGRAM);
    /* Datagrams that were connected, by the friend's leave to send there or by the leave to ask for the way alone. */
    if (!strncmp(name, "udp-sent", 8)) must(sendto(fd, way, strlen(way), 0, &friend_.at.any, friend_.length), "send");
    else must(reach(fd, friend_), "connect");
    if (!strcmp(name, "udp-dissolved")) must(dissolve(fd), "dissolve");
    return fd;
}

/* The acts. */

static long datagram(const char *call, int fd, struct place *to, int flags, void *control, size_t length) {
    struct iovec text = { (char *)way, strlen(way) };
    struct mmsghdr one = { .msg_hdr = { .msg_iov = &text, .msg_iovlen = 1, .msg_control = control,
                                        .msg_controllen = length } };
    if (to) one.msg_hdr.msg_name = &to->at, one.msg_hdr.msg_namelen = to->length;
    if (!strcmp(call, "sendto")) return sendto(fd, way, strlen(way), flags, to ? &to->at.any : NULL, to ? to->length : 0);
    if (!strcmp(call, "sendmsg")) return sendmsg(fd, &one.msg_hdr, flags);
    return sendmmsg(fd, &one, 1, flags);
}

/* Loose source route by the enemy: the packet goes there first, and nobody answers to it. */
static const unsigned char BY[] = { 131, 7, 4 };

static long set_out(int fd) {
    must(fcntl(fd, F_SETFL, O_NONBLOCK), "make it non-blocking");
    return reach(fd, friend_) && errno != EINPROGRESS ? -1 : 0;
}

static long by_options(int fd) {
    unsigned char route[8] = { 0 };
    memcpy(route, BY, 3);
    memcpy(route + 3, &enemy.at.v4.sin_addr, 4);
    if (setsockopt(fd, IPPROTO_IP, IP_OPTIONS, route, sizeof route)) return -1;
    return set_out(fd);
}

static long by_control(int fd) {
    _Alignas(struct cmsghdr) char space[CMSG_SPACE(8)] = { 0 };
    struct cmsghdr *head = (struct cmsghdr *)space;
    *head = (struct cmsghdr){ .cmsg_len = CMSG_LEN(8), .cmsg_level = IPPROTO_IP, .cmsg_type = IP_RETOPTS };
    memcpy(CMSG_DATA(head), BY, 3);
    memcpy(CMSG_DATA(head) + 3, &enemy.at.v4.sin_addr, 4);
    return datagram("sendmsg", fd, NULL, 0, space, sizeof space);
}

/* A segment routing header by the enemy. */
struct routing { unsigned char next, length, type, left, last, flags, tag[2]; struct in6_addr by[2]; };

static long by_header(int fd) {
    struct routing header = { .length = 4, .type = 4, .left = 1, .last = 1 };
    header.by[1] = enemy.at.v6.sin6_addr;
    if (setsockopt(fd, IPPROTO_IPV6, IPV6_RTHDR, &header, sizeof header)) return -1;
    return set_out(fd);
}

static long reach_and_tell(int fd) {
    if (reach(fd, enemy)) return -1;
    return send(fd, way, strlen(way), MSG_NOSIGNAL);
}

/* What a child's errno was, by its exit code. */
static long end_of(pid_t child) {
    int status;
    waitpid(child, &status, 0);
    errno = WEXITSTATUS(status);
    return errno ? -1 : 0;
}

/* Hands the socket to another process, which turns it. */
static long passed(int fd) {
    int pair[2], got;
    char byte, space[CMSG_SPACE(sizeof fd)] = { 0 };
    struct iovec text = { &byte, 1 };
    struct msghdr message = { .msg_iov = &text, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space };
    struct cmsghdr *head = (struct cmsghdr *)space;
    must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "make a pair");
    pid_t child = fork();
    if (!child) {
        close(fd);
        if (recvmsg(pair[1], &message, 0) != 1) _exit(EPROTO);
        memcpy(&got, CMSG_DATA(head), sizeof got);
        /* It is of use as it is. */
        if (send(got, "x", 1, MSG_NOSIGNAL) != 1 || recv(got, &byte, 1, 0) != 1) _exit(EPIPE);
        if (dissolve(got)) _exit(errno);
        _exit(reach_and_tell(got) < 0 ? errno : 0);
    }
    *head = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS };
    memcpy(CMSG_DATA(head), &fd, sizeof fd);
    must(sendmsg(pair[0], &message, 0), "pass it");
    close(fd);
    return end_of(child);
}

static long by_vfork(int fd) {
    pid_t child = vfork();
    if (!child) _exit(reach_and_tell(fd) < 0 ? errno : 0);
    return end_of(child);
}

/* A thread with a descriptor table of its own, where the number means another socket than in the first thread's. */
static void *alone(void *argument) {
    static long result;
    int fd = *(int *)argument;
    must(unshare(CLONE_FILES), "leave the table");
    must(dup2(new(SOCK_STREAM), fd), "put another there");
    result = reach_and_tell(fd) < 0 ? errno : 0;
    return &result;
}

static long own_table(int fd) {
    pthread_t thread;
    void *result;
    pthread_create(&thread, NULL, alone, &fd);
    pthread_join(thread, &result);
    errno = *(long *)result;
    return errno ? -1 : 0;
}

static long by_file(int fd) {
    int file = memfd_create("text", 0);
    must(write(file, way, strlen(way)), "write");
    lseek(file, 0, SEEK_SET);
    return sendfile(fd, file, NULL, strlen(way));
}

/* Opens a port; whoever looks from outside is asked for, and says when it has looked. */
static long look(long rc) {
    char byte;
    if (rc < 0) return rc;
    printf("look %s\n", way);
    return read(0, &byte, 1) == 1 ? 0 : -1;
}

static long take(int fd, const char *address, int listens) {
    struct place at = place(address, "20901");
    if (bind(fd, &at.at.any, at.length)) return -1;
    return look(listens ? listen(fd, 5) : 0);
}

/* An address of no family is taken for IPv4's. */
static long take_none(int fd, int listens) {
    struct place at = place("0.0.0.0", "20902");
    at.at.any.sa_family = AF_UNSPEC;
    if (bind(fd, &at.at.any, at.length)) return -1;
    return look(listens ? listen(fd, 5) : 0);
}

/* A send that names nobody fails, but the socket has a port from then on. */
static long speak(int fd) {
    send(fd, "", 1, MSG_NOSIGNAL);
    return look(0);
}

/* What is held back for the friend goes out once the socket is connected to another, by IPv4. */
static long hold_back(int fd) {
    struct place other = place("::ffff:203.0.113.10", "7");
    must(send(fd, way, strlen(way), MSG_MORE), "hold back");
    reach(fd, other);
    return send(fd, way, strlen(way), 0);
}

static long act(const char *name, int fd) {
    if (!strcmp(name, "connect")) return reach_and_tell(fd);
    if (!strcmp(name, "vfork")) return by_vfork(fd);
    if (!strcmp(name, "passed")) return passed(fd);
    if (!strcmp(name, "own-table")) return own_table(fd);
    if (!strcmp(name, "options")) return by_options(fd);
    if (!strcmp(name, "control")) return by_control(fd);
    if (!strcmp(name, "header")) return by_header(fd);
    if (!strcmp(name, "listen")) return look(listen(fd, 5));
    if (!strcmp(name, "bind-any")) return take(fd, "0.0.0.0", 1);
    if (!strcmp(name, "bind-loopback")) return take(fd, "127.0.0.1", 1);
    if (!strcmp(name, "bind-datagram")) return take(fd, "0.0.0.0", 0);
    if (!strcmp(name, "bind-none")) return take_none(fd, 1);
    if (!strcmp(name, "bind-none-datagram")) return take_none(fd, 0);
    if (!strcmp(name, "speak")) return speak(fd);
    if (!strcmp(name, "hold-back")) return hold_back(fd);
    if (!strcmp(name, "write")) return write(fd, way, strlen(way));
    if (!strcmp(name, "file")) return by_file(fd);
    if (!strncmp(name, "fast-", 5)) return datagram(name + 5, fd, &enemy, MSG_FASTOPEN, NULL, 0);
    /* To where the socket is connected, or asks the way to. */
    if (!strncmp(name, "same-", 5)) return datagram(name + 5, fd, NULL, 0, NULL, 0);
    if (!strncmp(name, "friend-", 7)) return datagram(name + 7, fd, &friend_, 0, NULL, 0);
    return datagram(name, fd, &enemy, 0, NULL, 0);
}

/* Sockets that open connections by ways that nobody decides. */
static long family(const char *name) {
    struct { const char *name; int family, type, protocol; } all[] = {
        { "raw", AF_INET, SOCK_RAW, IPPROTO_RAW }, { "raw6", AF_INET6, SOCK_RAW, IPPROTO_RAW },
        { "packet", AF_PACKET, SOCK_DGRAM, 0 }, { "vsock", AF_VSOCK, SOCK_STREAM, 0 },
        { "netlink", AF_NETLINK, SOCK_RAW, NETLINK_GENERIC }, { "sctp", AF_INET, SOCK_STREAM, IPPROTO_SCTP },
        { "sctp-many", AF_INET, SOCK_SEQPACKET, IPPROTO_SCTP }, { "mptcp", AF_INET, SOCK_STREAM, 262 },
        { "mptcp6", AF_INET6, SOCK_STREAM, 262 }, { "smc", 43, SOCK_STREAM, 0 },
        { "dccp", AF_INET, SOCK_DCCP, IPPROTO_DCCP }, { "udplite", AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE },
        { "udplite6", AF_INET6, SOCK_DGRAM, IPPROTO_UDPLITE }, { "l2tp", AF_INET, SOCK_DGRAM, 115 },
        { "rds", 21, SOCK_SEQPACKET, 0 }, { "tipc", 30, SOCK_STREAM, 0 }, { "xdp", 44, SOCK_RAW, 0 },
        { "route", AF_NETLINK, SOCK_RAW, NETLINK_ROUTE },
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!strcmp(name, all[i].name)) return socket(all[i].family, all[i].type, all[i].protocol);
    if (!strcmp(name, "ring")) {
        struct io_uring_params parameters = { 0 };
        return RAW(SYS_io_uring_setup, 1, &parameters);
    }
    exit(97);
}

static int try(char *name) {
    char state_[64] = { 0 }, *colon = strchr(name, ':');
    long rc;
    way = name;
    setlinebuf(stdout);
    alarm(20);
    if (!colon) exit(96);
    memcpy(state_, name, colon - name);
    rc = strcmp(state_, "socket") ? act(colon + 1, state(state_)) : family(colon + 1);
    printf("%s: %s\n", way, rc < 0 ? strerrorname_np(errno) : "done");
    return 0;
}

int main(int argc, char **argv) {
    friend_ = place(argv[1], argv[2]);
    enemy = place(argv[3], argv[4]);
    for (int i = 5; i < argc; i++) {
        pid_t child = fork();
        int status;
        if (!child) return try(argv[i]);
        waitpid(child, &status, 0);
        if (status) printf("%s: ended with %d\n", argv[i], status), fflush(stdout);
    }
    return 0;
}
