/* Calls through a foreign entry: foreign int80|x32. Both ask for getpid and compare with the real one. */
#include "attempt.h"

int main(int argc, char **argv) {
    long pid = -1;
    if (argc < 2) return 99;
    if (HOW("int80")) __asm__ volatile("int $0x80" : "=a"(pid) : "a"(20L /* getpid in the i386 table */) : "memory", "r8", "r9", "r10", "r11");
    if (HOW("x32")) pid = RAW(0x40000000 | SYS_getpid);
    if (pid == getpid()) return end(0);
    if (HOW("x32") && pid < 0) return end(-1);
    errno = ENOSYS;
    return end(-1);
}
