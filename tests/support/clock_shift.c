/* Shifts the clocks of one process and its children, for tests: LD_PRELOAD=clock_shift.so CLOCK_SHIFT=FILE COMMAND

FILE holds three 64-bit integers in the machine's byte order: the nanoseconds by which CLOCK_REALTIME, CLOCK_MONOTONIC
and CLOCK_BOOTTIME are ahead of the kernel's. It is mapped, so a change counts at once, while the process runs.

What takes an absolute time is shifted back before the kernel sees it: Python's locks, condition variables and sleep use
such times. Timeouts that are spans (epoll_wait) are the kernel's own and stay. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL

static const volatile int64_t unshifted[3];
static const volatile int64_t *ahead = unshifted;

__attribute__((constructor)) static void map_offsets(void)
{
    const char *path = getenv("CLOCK_SHIFT");
    int file = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return;
    void *mapped = mmap(NULL, sizeof unshifted, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (mapped != MAP_FAILED)
        ahead = mapped;
}

static int64_t offset_of(clockid_t clock)
{
    switch (clock) {
    case CLOCK_REALTIME:
    case CLOCK_REALTIME_COARSE:
        return ahead[0];
    case CLOCK_MONOTONIC:
    case CLOCK_MONOTONIC_RAW:
    case CLOCK_MONOTONIC_COARSE:
        return ahead[1];
    case CLOCK_BOOTTIME:
        return ahead[2];
    default: /* CPU times */
        return 0;
    }
}

static struct timespec moved(struct timespec at, int64_t by)
{
    int64_t nanoseconds = at.tv_nsec + by % SECOND;
    int64_t carry = nanoseconds < 0 ? -1 : nanoseconds >= SECOND;
    at.tv_sec += by / SECOND + carry;
    at.tv_nsec = nanoseconds - carry * SECOND;
    return at;
}

static struct timespec kernels(const struct timespec *at, clockid_t clock)
{
    struct timespec back = moved(*at, -offset_of(clock));
    if (back.tv_sec < 0) /* long past */
        back = (struct timespec){0, 0};
    return back;
}

int clock_gettime(clockid_t clock, struct timespec *at)
{
    int failed = syscall(SYS_clock_gettime, clock, at);
    if (!failed)
        *at = moved(*at, offset_of(clock));
    return failed;
}

time_t time(time_t *at)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at != NULL)
        *at = now.tv_sec;
    return now.tv_sec;
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

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *at, struct timespec *left)
{
    static int (*next)(clockid_t, int, const struct timespec *, struct timespec *);
    if (next == NULL)
        next = dlsym(RTLD_NEXT, "clock_nanosleep");
    if (!(flags & TIMER_ABSTIME))
        return next(clock, flags, at, left);
    struct timespec until = kernels(at, clock);
    return next(clock, flags, &until, left);
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict at)
{
    static int (*next)(sem_t *, const struct timespec *);
    struct timespec until = kernels(at, CLOCK_REALTIME);
    if (next == NULL)
        next = dlsym(RTLD_NEXT, "sem_timedwait");
    return next(semaphore, &until);
}

int sem_clockwait(sem_t *restrict semaphore, clockid_t clock, const struct timespec *restrict at)
{
    static int (*next)(sem_t *, clockid_t, const struct timespec *);
    struct timespec until = kernels(at, clock);
    if (next == NULL)
        next = dlsym(RTLD_NEXT, "sem_clockwait");
    return next(semaphore, clock, &until);
}

/* Python creates its condition variables for CLOCK_MONOTONIC. */
int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict at)
{
    static int (*next)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    struct timespec until = kernels(at, CLOCK_MONOTONIC);
    if (next == NULL)
        next = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    return next(condition, mutex, &until);
}
