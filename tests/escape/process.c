/* Processes at awkward moments: process killed TRIES | leader | script TRIES GOOD BAD | fifo TRIES | alarm |
 * crowd MANY. */
#include "attempt.h"
#include <netinet/in.h>

/* A child is killed while its exec is under way; its parent must see it end, every time. */
static int killed(int tries) {
    for (int i = 0; i < tries; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            execl("/bin/true", "true", NULL);
            _exit(1);
        }
        usleep(rand() % 2000);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
    return end(0);
}

/* A thread whose process has lost its first thread asks for something and gets an answer. */
static void *survivor(void *unused) {
    struct sockaddr_in closed = {.sin_family = AF_INET, .sin_port = htons(1), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    usleep(100000);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    int refused = connect(fd, (struct sockaddr *)&closed, sizeof closed) < 0 && errno == ECONNREFUSED;
    exit(refused ? end(0) : 1);
    return unused;
}

/* A descriptor alternates between two scripts while it is executed: TRIES times, and each says which it is. */
static const char *good, *bad;
static void *turn(void *unused) {
    int a = open(good, O_RDONLY), b = open(bad, O_RDONLY);
    for (;;) {
        dup2(a, 50);
        dup2(b, 50);
    }
    return unused;
}

static int script(int tries) {
    char *const words[] = {"script", NULL}, *const nothing[] = {NULL};
    pthread_t thread;
    pthread_create(&thread, NULL, turn, NULL);
    usleep(1000);
    for (int i = 0; i < tries; i++) {
        /* The child shares the table of descriptors, so they go on turning while it asks. */
        pid_t pid = (pid_t)RAW(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
        if (pid == 0) {
            RAW(SYS_execveat, 50, "", words, nothing, AT_EMPTY_PATH);
            _exit(1);
        }
        waitpid(pid, NULL, 0);
    }
    return end(0);
}

/* Children that wait for a reader who never comes are killed; afterwards files can still be made, and a reader who does
 * come meets no ghost of them. */
static int fifo(int tries) {
    if (mkfifo("fifo", 0600)) return 99;
    for (int i = 0; i < tries; i++) {
        pid_t pid = fork();
        if (pid == 0) _exit(open("fifo", O_WRONLY) < 0);
        usleep(3000);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
    usleep(50000);
    int reader = open("fifo", O_RDONLY | O_NONBLOCK);
    char byte;
    if (reader < 0 || read(reader, &byte, 1) != 0) return 1;
    return end(open("after", O_CREAT | O_WRONLY, 0600));
}

/* More waiters than there are workers: whoever does not wait is still answered. */
static int crowd(int many) {
    pid_t pids[1024];
    if (many > 1024 || mkfifo("fifo", 0600)) return 99;
    for (int i = 0; i < many; i++) {
        if ((pids[i] = fork()) == 0) {
            open("fifo", O_WRONLY);
            pause();
        }
    }
    usleep(500000);
    int made = open("after", O_CREAT | O_WRONLY, 0600);
    for (int i = 0; i < many; i++) kill(pids[i], SIGKILL);
    while (wait(NULL) > 0);
    return end(made);
}

/* A handled signal ends the wait. */
static void handler(int unused) { (void)unused; }
static int interrupted(void) {
    struct sigaction action = {.sa_handler = handler};
    sigaction(SIGALRM, &action, NULL);
    if (mkfifo("fifo", 0600)) return 99;
    alarm(1);
    return open("fifo", O_WRONLY) < 0 && errno == EINTR ? end(0) : 1;
}

int main(int argc, char **argv) {
    if (argc < 2) return 99;
    if (HOW("fifo")) return fifo(atoi(argv[2]));
    if (HOW("crowd")) return crowd(atoi(argv[2]));
    if (HOW("alarm")) return interrupted();
    if (HOW("killed")) return killed(atoi(argv[2]));
    if (HOW("script")) {
        good = argv[3];
        bad = argv[4];
        return script(atoi(argv[2]));
    }
    pthread_t thread;
    pthread_create(&thread, NULL, survivor, NULL);
    pthread_exit(NULL);
}
