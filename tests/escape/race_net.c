/* Races for what a rule keeps out of reach: race_net WAY TRIES FRIEND PORT ENEMY PORT.
 *
 * Prints how many of the tries came through, how many were refused (EACCES) and how many ended otherwise. */
#include "attempt.h"
#include <arpa/inet.h>
#include <netinet/in.h>

static struct sockaddr_in friend_, enemy, turning;
static volatile int over;
static int number;
static long through, refused, other;

static struct sockaddr_in place(const char *address, const char *port) {
    struct sockaddr_in found = { .sin_family = AF_INET, .sin_port = htons(atoi(port)) };
    if (inet_pton(AF_INET, address, &found.sin_addr) != 1) exit(98);
    return found;
}

static void count(long rc) {
    if (rc >= 0) through++;
    else if (errno == EACCES) refused++;
    else other++;
}

static int reach(int fd, const struct sockaddr_in *to) {
    return connect(fd, (const struct sockaddr *)to, sizeof *to);
}

static int dissolve(int fd) {
    struct sockaddr none = { .sa_family = AF_UNSPEC };
    return connect(fd, &none, sizeof none);
}

/* The other thread. */

static void *turn_address(void *unused) {
    /* As one word each: an address is the one or the other, never a mixture. */
    volatile uint64_t *word = (volatile uint64_t *)&turning;
    uint64_t both[2];
    memcpy(&both[0], &friend_, 8), memcpy(&both[1], &enemy, 8);
    for (int i = 0; !over; i ^= 1) {
        *word = both[i];
        for (volatile int wait = 0; wait < 50; wait++);
    }
    return unused;
}

/* The number stands now for a fresh socket, now for one that was handed over. */
static void *turn_number(void *unused) {
    while (!over) {
        int fresh = socket(AF_INET, SOCK_STREAM, 0), connected = socket(AF_INET, SOCK_STREAM, 0);
        reach(connected, &friend_);
        for (int i = 0; i < 4; i++) dup2(i & 1 ? fresh : connected, number);
        close(fresh), close(connected);
    }
    return unused;
}

static void *turn_connection(void *unused) {
    while (!over) {
        dissolve(number);
        reach(number, &friend_);
    }
    return unused;
}

int main(int argc, char **argv) {
    if (argc != 7) return 99;
    long tries = atol(argv[2]);
    pthread_t thread;
    friend_ = place(argv[3], argv[4]);
    enemy = place(argv[5], argv[6]);
    turning = friend_;
    int datagrams = HOW("sendto") || HOW("sendmsg") || HOW("sendmmsg");
    number = socket(AF_INET, datagrams ? SOCK_DGRAM : SOCK_STREAM, 0);
    void *(*turn)(void *) = HOW("number") ? turn_number : HOW("dissolve") ? turn_connection : turn_address;
    signal(SIGPIPE, SIG_IGN);
    pthread_create(&thread, NULL, turn, NULL);
    for (long i = 0; i < tries; i++) {
        struct iovec text = { "x", 1 };
        struct mmsghdr one = { .msg_hdr = { .msg_name = &turning, .msg_namelen = sizeof turning, .msg_iov = &text,
                                            .msg_iovlen = 1 } };
        if (HOW("connect")) {
            int fd = socket(AF_INET, SOCK_STREAM, 0);
            count(reach(fd, &turning));
            close(fd);
        }
        if (HOW("sendto")) count(sendto(number, "x", 1, 0, (struct sockaddr *)&turning, sizeof turning));
        if (HOW("sendmsg")) count(sendmsg(number, &one.msg_hdr, 0));
        if (HOW("sendmmsg")) count(sendmmsg(number, &one, 1, 0));
        if (HOW("number") || HOW("dissolve")) count(reach(number, &enemy));
    }
    over = 1;
    pthread_join(thread, NULL);
    printf("%ld %ld %ld\n", through, refused, other);
    return 0;
}
