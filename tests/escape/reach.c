/* Reaching other processes and sockets: reach HOW ARG. */
#include "attempt.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stddef.h>

static int connect_inet(const char *address, const char *port, int type) {
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(atoi(port)) };
    inet_pton(AF_INET, address, &to.sin_addr);
    return connect(socket(AF_INET, type, 0), (struct sockaddr *)&to, sizeof to);
}

static int connect_inet6(const char *address, const char *port) {
    struct sockaddr_in6 to = { .sin6_family = AF_INET6, .sin6_port = htons(atoi(port)) };
    inet_pton(AF_INET6, address, &to.sin6_addr);
    return connect(socket(AF_INET6, SOCK_STREAM, 0), (struct sockaddr *)&to, sizeof to);
}

static int connect_unix(const char *name, int abstract) {
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    strncpy(to.sun_path + abstract, name, sizeof to.sun_path - 2);
    socklen_t length = offsetof(struct sockaddr_un, sun_path) + abstract + strlen(name);
    return connect(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&to, length);
}

/* A datagram with an address, by each of the three calls that take one. */
static long send_to(const char *how, const char *address, const char *port) {
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(atoi(port)) };
    struct iovec text = { "owned", 5 };
    struct mmsghdr both[2] = { { .msg_hdr = { .msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &text, .msg_iovlen = 1 } } };
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    inet_pton(AF_INET, address, &to.sin_addr);
    both[1] = both[0];
    if (!strcmp(how, "sendto")) return sendto(fd, "owned", 5, 0, (struct sockaddr *)&to, sizeof to);
    if (!strcmp(how, "sendmsg")) return sendmsg(fd, &both[0].msg_hdr, 0);
    return sendmmsg(fd, both, 2, 0);
}

/* The box's own loopback: a listener and a client in one program. */
static int own_loopback(void) {
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
    char byte = 'x';
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 1)) return -1;
    if (getsockname(listener, (struct sockaddr *)&at, &length)) return -1;
    if (connect(client, (struct sockaddr *)&at, sizeof at)) return -1;
    int server = accept(listener, NULL, NULL);
    if (server < 0 || write(client, &byte, 1) != 1 || read(server, &byte, 1) != 1) return -1;
    return 0;
}

static void survive(int signal) { (void)signal; }

int main(int argc, char **argv) {
    const char *a = argc > 2 ? argv[2] : "", *b = argc > 3 ? argv[3] : "";
    char text[256], target[PATH_MAX];
    if (HOW("exists")) return end(kill(atoi(a), 0));
    if (HOW("everyone")) return end(kill(-1, 0)); /* signal 0: only asks whether there is anyone to reach */
    if (HOW("group")) { signal(SIGUSR1, survive); return end(kill(0, SIGUSR1)); }
    if (HOW("kill")) return end(kill(atoi(a), SIGUSR1));
    if (HOW("tgkill")) return end(RAW(SYS_tgkill, atoi(a), atoi(a), SIGUSR1));
    if (HOW("sigqueue")) return end(sigqueue(atoi(a), SIGUSR1, (union sigval){ 0 }));
    if (HOW("pidfd")) return end(RAW(SYS_pidfd_open, atoi(a), 0));
    if (HOW("tcp")) return end(connect_inet(a, b, SOCK_STREAM));
    if (HOW("tcp6")) return end(connect_inet6(a, b));
    if (HOW("udp")) return end(connect_inet(a, b, SOCK_DGRAM));
    if (HOW("sendto") || HOW("sendmsg") || HOW("sendmmsg")) return end(send_to(argv[1], a, b));
    if (HOW("unix")) return end(connect_unix(a, 0));
    if (HOW("abstract")) return end(connect_unix(a, 1));
    if (HOW("own-loopback")) return end(own_loopback());
    if (HOW("environ")) {
        snprintf(text, sizeof text, "/proc/%s/environ", a);
        int fd = open(text, O_RDONLY);
        return end(fd < 0 ? -1 : read(fd, text, sizeof text));
    }
    if (HOW("fds")) {
        snprintf(text, sizeof text, "/proc/%s/fd/0", a);
        return end(readlink(text, target, sizeof target));
    }
    if (HOW("root")) {
        snprintf(text, sizeof text, "/proc/%s/root", a);
        return end(readlink(text, target, sizeof target));
    }
    if (HOW("euid")) { printf("%d\n", geteuid()); return 0; }
    return 99;
}
