/* Leaves a trace of having run: appends the first argument, or `ran`, to the file named in the binary. */
#include "attempt.h"

int main(int argc, char **argv) {
    int fd = open("marks", O_WRONLY | O_CREAT | O_APPEND, 0644);
    char line[64];
    int length = snprintf(line, sizeof line, "%s\n", argc > 1 ? argv[1] : "ran");
    return write(fd, line, length) != length;
}
