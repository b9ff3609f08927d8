/* Preloaded into every process of a host whose clock is wrong: adds an offset, in nanoseconds, to the wall clock.
   The offset is mapped from a file, so that it is the same for all and changes at once. Times of files are right. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <semaphore.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL

static volatile long long *offset;

__attribute__((constructor)) static void map_offset(void)
{
    int file = open(OFFSET_FILE, O_RDONLY | O_CLOEXEC);
    void *mapped = file < 0 ? MAP_FAILED : mmap(0, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
    if (file >= 0)
        close(file);
    if (mapped != MAP_FAILED)
        offset = mapped;
}

static void shift(struct timespec *at, long long by)
{
    long long nanoseconds = at->tv_nsec + by % SECOND;
    at->tv_sec += by / SECOND + (nanoseconds >= SECOND) - (nanoseconds < 0);
    at->tv_nsec = (nanoseconds + SECOND) % SECOND;
}

int clock_gettime(clockid_t id, struct timespec *at)
{
    int result = syscall(SYS_clock_gettime, id, at);
    if (result == 0 && offset && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
        shift(at, *offset);
    return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at)
        *at = now.tv_sec;
    return now.tv_sec;
}

/* Python's locks waited by the wall clock up to 3.6: the kernel, which does the waiting, knows the right one. */
int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until)
{
    int (*real)(sem_t *, const struct timespec *) = dlsym(RTLD_NEXT, "sem_timedwait");
    struct timespec at = *until;
    if (offset)
        shift(&at, -*offset);
    return real(semaphore, &at);
}
