/* A program that keeps a mutex, a reader-writer lock and two counters in named shared memory. */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct board {
    pthread_mutex_t mutex;
    char to_64[64 - sizeof(pthread_mutex_t)];
    pthread_rwlock_t rwlock;
    char to_128[64 - sizeof(pthread_rwlock_t)];
    volatile long under_mutex;
    volatile long under_rwlock;
};

static void check(int failed, const char *what)
{
    if (failed) {
        perror(what);
        exit(1);
    }
}

static void wait_for_line(void)
{
    char line[16];
    check(fgets(line, sizeof line, stdin) == NULL, "read a line");
}

int main(int argc, char **argv)
{
    check(argc != 3, "usage: peer NAME ROUNDS");
    int fd = shm_open(argv[1], O_RDWR | O_CREAT | O_EXCL, 0600);
    check(fd < 0, "shm_open");
    check(ftruncate(fd, sizeof(struct board)), "ftruncate");
    struct board *board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    check(board == MAP_FAILED, "mmap");

    pthread_mutexattr_t mutex;
    pthread_mutexattr_init(&mutex);
    pthread_mutexattr_setpshared(&mutex, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(&board->mutex, &mutex);
    pthread_rwlockattr_t rwlock;
    pthread_rwlockattr_init(&rwlock);
    pthread_rwlockattr_setpshared(&rwlock, PTHREAD_PROCESS_SHARED);
    pthread_rwlock_init(&board->rwlock, &rwlock);

    puts("ready");
    fflush(stdout);
    wait_for_line();
    for (long round = atol(argv[2]); round > 0; round--) {
        pthread_mutex_lock(&board->mutex);
        board->under_mutex += 1;
        pthread_mutex_unlock(&board->mutex);
        pthread_rwlock_wrlock(&board->rwlock);
        board->under_rwlock += 1;
        pthread_rwlock_unlock(&board->rwlock);
    }
    puts("counted");
    fflush(stdout);
    wait_for_line();

    pthread_mutex_lock(&board->mutex);
    pthread_rwlock_rdlock(&board->rwlock);
    puts("holding");
    fflush(stdout);
    wait_for_line();
    pthread_rwlock_unlock(&board->rwlock);
    pthread_mutex_unlock(&board->mutex);
    puts("released");
    fflush(stdout);
    wait_for_line();
    printf("%ld %ld\n", board->under_mutex, board->under_rwlock);
    return 0;
}
