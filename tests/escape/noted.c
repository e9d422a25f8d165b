/* Leaves the name of the directory it was made for, NAME, in the file $MARKS. */
#include "attempt.h"

int main(void) {
    int fd = open(getenv("MARKS"), O_WRONLY | O_CREAT | O_APPEND, 0644);
    return write(fd, NAME "\n", sizeof NAME) != sizeof NAME;
}
