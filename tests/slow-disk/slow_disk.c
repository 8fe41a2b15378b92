/*
 * A slow, small or hanging disk for one process, as an LD_PRELOAD library.
 *
 *     cc -shared -fPIC -O2 -Wall -Wextra -Werror -pthread -o slow_disk.so slow_disk.c
 *     SLOW_DISK_DIR=/data SLOW_DISK_BYTES_PER_S=125000000 LD_PRELOAD=./slow_disk.so program
 *
 * Model. Files below SLOW_DISK_DIR live on one device with a write cache in front. A write goes
 * into the cache and costs nothing, unless the cache holds more than SLOW_DISK_CACHE_BYTES of dirty
 * data: then the writer waits until the device has taken the excess, as the kernel throttles. A
 * sync takes SLOW_DISK_LATENCY_US plus the time of the bytes dirtied in that file since its last
 * sync. The device serves one sync after the other, in order of arrival, so a sync of a small file
 * waits for that of a large one that came before. Two processes have two devices.
 *
 * A sync does not reach the real disk: the data stay in the page cache, which survives kill -9 of
 * the process, and a busy real disk does not disturb the measurement.
 *
 * Settings are environment variables. Files in SLOW_DISK_CONTROL override them while the process
 * runs, and are looked at every few milliseconds:
 *
 *     bytes_per_s  SLOW_DISK_BYTES_PER_S   bandwidth; 0: unlimited
 *     latency_us   SLOW_DISK_LATENCY_US    fixed time of a sync; default 100
 *     cache_bytes  SLOW_DISK_CACHE_BYTES   dirty bytes before writers wait; default 1 GiB
 *     capacity     SLOW_DISK_CAPACITY      bytes that all files may have together; 0: unlimited
 *     read_cost    SLOW_DISK_READ_COST     1: reads take the device's time, too; default 0
 *     hang                                 while it exists, writes, syncs and changes of names
 *                                          block without an error
 *
 * Not modelled: background write-back, the journal of the file system, subdirectories and sparse
 * files (capacity counts lengths), memory maps, creation and truncation by `open`, and system calls
 * that bypass the C library (the crate `rustix` makes such; the standard library does not).
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* Entries of files that are gone stay, so there is room for a long run's log segments. */
enum { FILES = 1 << 16, SETTINGS = 5 };

/* A file that was written to. `below` remembers whether it is on the device. */
struct file {
    dev_t dev;
    ino_t ino;
    bool below;
    int64_t dirty;
};

enum setting { BYTES_PER_S, LATENCY_US, CACHE_BYTES, CAPACITY, READ_COST };
static struct {
    const char *variable, *control;
    int64_t initial, value;
} settings[SETTINGS] = {
    [BYTES_PER_S] = {"SLOW_DISK_BYTES_PER_S", "bytes_per_s", 0, 0},
    [LATENCY_US] = {"SLOW_DISK_LATENCY_US", "latency_us", 100, 0},
    [CACHE_BYTES] = {"SLOW_DISK_CACHE_BYTES", "cache_bytes", 1 << 30, 0},
    [CAPACITY] = {"SLOW_DISK_CAPACITY", "capacity", 0, 0},
    [READ_COST] = {"SLOW_DISK_READ_COST", "read_cost", 0, 0},
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char directory[PATH_MAX], control[PATH_MAX];
static size_t directory_length;
/* All below are guarded by `lock`. Times are nanoseconds of the monotonic clock. */
static struct file files[FILES];
static int64_t dirty_total, busy_until, settings_read_at;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void sleep_until(int64_t at) {
    struct timespec t = {at / 1000000000, at % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) {
    }
}

__attribute__((constructor)) static void start(void) {
    const char *dir = getenv("SLOW_DISK_DIR"), *ctl = getenv("SLOW_DISK_CONTROL");
    /* Names in /proc are canonical, so this one has to be. */
    if (dir != NULL && realpath(dir, directory) != NULL) directory_length = strlen(directory);
    if (ctl != NULL) snprintf(control, sizeof control, "%s", ctl);
    for (int i = 0; i < SETTINGS; i++) {
        const char *text = getenv(settings[i].variable);
        if (text != NULL) settings[i].initial = strtoll(text, NULL, 10);
        settings[i].value = settings[i].initial;
    }
}

static bool is_below(const char *path) {
    return directory_length > 0 && strncmp(path, directory, directory_length) == 0 &&
           (path[directory_length] == '/' || path[directory_length] == 0);
}

/* Reads the control files, at most every 20 ms. With `lock` held. */
static void read_settings(void) {
    if (control[0] == 0 || now_ns() - settings_read_at < 20000000) return;
    settings_read_at = now_ns();
    for (int i = 0; i < SETTINGS; i++) {
        char path[PATH_MAX + 32], text[32] = {0};
        snprintf(path, sizeof path, "%s/%s", control, settings[i].control);
        int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
        bool found = fd >= 0 && syscall(SYS_read, fd, text, sizeof text - 1) > 0;
        if (fd >= 0) syscall(SYS_close, fd);
        settings[i].value = found ? strtoll(text, NULL, 10) : settings[i].initial;
    }
}

static void wait_while_hung(void) {
    char path[PATH_MAX + 8];
    if (control[0] == 0) return;
    snprintf(path, sizeof path, "%s/hang", control);
    while (syscall(SYS_faccessat, AT_FDCWD, path, F_OK) == 0) sleep_until(now_ns() + 5000000);
}

/* Is the file behind this descriptor on the device? -1 if it has no name. */
static int is_ours(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return -1;
    path[length] = 0;
    return is_below(path);
}

/* Where this file is in the table, or would be; NULL if it is not there and the table is full. */
static struct file *slot(const struct stat *st) {
    for (size_t probe = 0; probe < FILES; probe++) {
        struct file *f = &files[(st->st_ino + probe) % FILES];
        if (f->ino == 0 || (f->ino == st->st_ino && f->dev == st->st_dev)) return f;
    }
    return NULL;
}

/* The entry of this file, with `lock` held; NULL if it is not on the device. */
static struct file *find(int fd, const struct stat *st) {
    struct file *f = slot(st);
    if (f != NULL && f->ino != 0) return f->below ? f : NULL;
    int ours = is_ours(fd);
    if (ours < 0 || (ours == 0 && f == NULL)) return NULL;
    if (f == NULL) {
        /* A test writes to far fewer files; to go on would measure something else. */
        fprintf(stderr, "slow_disk: more than %d files\n", FILES);
        abort();
    }
    *f = (struct file){st->st_dev, st->st_ino, ours == 1, 0};
    return ours == 1 ? f : NULL;
}

/* A regular file of the device? Then its entry, and `lock` is held. Sockets cost one fstat. */
static struct file *enter(int fd, struct stat *st) {
    int before = errno;
    bool regular = directory_length > 0 && fstat(fd, st) == 0 && S_ISREG(st->st_mode);
    struct file *f = NULL;
    if (regular) {
        pthread_mutex_lock(&lock);
        read_settings();
        f = find(fd, st);
        if (f == NULL) pthread_mutex_unlock(&lock);
    }
    errno = before;
    return f;
}

/* Reserves the device for so many bytes and `extra_us`, with `lock` held. Returns the end. */
static int64_t reserve(int64_t bytes, int64_t extra_us) {
    int64_t bandwidth = settings[BYTES_PER_S].value, begin = now_ns();
    if (begin < busy_until) begin = busy_until;
    double transfer = bandwidth > 0 ? (double)bytes / (double)bandwidth * 1e9 : 0;
    return busy_until = begin + extra_us * 1000 + (int64_t)transfer;
}

/* The lengths of all files on the device. A directory has few, and only growing writes ask. */
static int64_t used_bytes(void) {
    DIR *dir = opendir(directory);
    int64_t sum = 0;
    struct stat st;
    for (struct dirent *e; dir != NULL && (e = readdir(dir)) != NULL;)
        if (fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
            sum += st.st_size;
    if (dir != NULL) closedir(dir);
    return sum;
}

/* How long a file may become that is to grow to `wanted`, with `lock` held. */
static int64_t room(const struct stat *st, int64_t wanted) {
    int64_t capacity = settings[CAPACITY].value;
    if (capacity == 0 || wanted <= st->st_size) return wanted;
    int64_t most = st->st_size + capacity - used_bytes();
    if (most < st->st_size) most = st->st_size;
    return wanted < most ? wanted : most;
}

/* Waits as a write of the device has to. Returns how many of `count` bytes fit; -1 for none. */
static ssize_t before_write(int fd, off_t offset, size_t count) {
    struct stat st;
    if (enter(fd, &st) == NULL) return (ssize_t)count;
    pthread_mutex_unlock(&lock);
    wait_while_hung();
    if (enter(fd, &st) == NULL) return (ssize_t)count;
    if (offset < 0)
        offset = fcntl(fd, F_GETFL) & O_APPEND ? st.st_size : lseek(fd, 0, SEEK_CUR);
    int64_t fits = room(&st, offset + (int64_t)count) - offset;
    pthread_mutex_unlock(&lock);
    if (fits > 0 || count == 0) return (ssize_t)fits;
    errno = ENOSPC;
    return -1;
}

static ssize_t after_write(int fd, ssize_t written) {
    struct stat st;
    struct file *f = written > 0 ? enter(fd, &st) : NULL;
    if (f == NULL) return written;
    f->dirty += written;
    dirty_total += written;
    int64_t excess = dirty_total - settings[CACHE_BYTES].value, done = 0;
    if (excess > f->dirty) excess = f->dirty;
    if (excess > 0) {
        f->dirty -= excess;
        dirty_total -= excess;
        done = reserve(excess, 0);
    }
    pthread_mutex_unlock(&lock);
    if (done > 0) sleep_until(done);
    return written;
}

/* Forgets what was dirty beyond this length: the file was cut, or is gone. */
static void cut(struct file *f, int64_t length) {
    if (f->dirty <= length) return;
    dirty_total -= f->dirty - length;
    f->dirty = length;
}

static int sync_file(int fd, int number) {
    struct stat st;
    if (directory_length == 0 || fstat(fd, &st) != 0) return syscall(number, fd);
    pthread_mutex_lock(&lock);
    read_settings();
    struct file *f = find(fd, &st);
    if (f == NULL) {
        pthread_mutex_unlock(&lock);
        return syscall(number, fd);
    }
    pthread_mutex_unlock(&lock);
    wait_while_hung();
    pthread_mutex_lock(&lock);
    /* Bytes that were written twice are dirty once. */
    if (S_ISREG(st.st_mode)) cut(f, st.st_size);
    int64_t dirty = f->dirty, done = reserve(dirty, settings[LATENCY_US].value);
    f->dirty = 0;
    pthread_mutex_unlock(&lock);
    sleep_until(done);
    wait_while_hung();
    pthread_mutex_lock(&lock);
    dirty_total -= dirty; /* Under write-back it still was in the cache. */
    pthread_mutex_unlock(&lock);
    return 0;
}

int fsync(int fd) { return sync_file(fd, SYS_fsync); }
int fdatasync(int fd) { return sync_file(fd, SYS_fdatasync); }
int sync_file_range(int fd, off64_t from, off64_t count, unsigned flags) {
    struct stat st;
    if (enter(fd, &st) == NULL) return syscall(SYS_sync_file_range, fd, from, count, flags);
    pthread_mutex_unlock(&lock);
    return sync_file(fd, SYS_fdatasync); /* What waits for a part waits for the whole here. */
}

ssize_t write(int fd, const void *data, size_t count) {
    ssize_t fits = before_write(fd, -1, count);
    return fits < 0 ? -1 : after_write(fd, syscall(SYS_write, fd, data, (size_t)fits));
}
ssize_t pwrite64(int fd, const void *data, size_t count, off64_t offset) {
    ssize_t fits = before_write(fd, offset, count);
    return fits < 0 ? -1 : after_write(fd, syscall(SYS_pwrite64, fd, data, (size_t)fits, offset));
}
ssize_t pwrite(int fd, const void *data, size_t count, off_t offset) {
    return pwrite64(fd, data, count, offset);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    struct stat st;
    if (enter(fd, &st) == NULL) return syscall(SYS_writev, fd, parts, count);
    pthread_mutex_unlock(&lock);
    return count > 0 ? write(fd, parts[0].iov_base, parts[0].iov_len) : 0; /* a short write */
}

static int set_length(int fd, int64_t length, int mode, off64_t offset, bool allocate) {
    struct stat st;
    long number = allocate ? SYS_fallocate : SYS_ftruncate;
    if (enter(fd, &st) != NULL) {
        pthread_mutex_unlock(&lock);
        wait_while_hung();
        struct file *f = enter(fd, &st);
        int64_t end = allocate ? (mode == 0 ? offset + length : 0) : length;
        bool fits = room(&st, end) >= end;
        if (f != NULL && fits && !allocate) cut(f, length);
        if (f != NULL) pthread_mutex_unlock(&lock);
        if (!fits) {
            errno = ENOSPC;
            return -1;
        }
    }
    return allocate ? syscall(number, fd, mode, offset, length) : syscall(number, fd, length);
}
int ftruncate64(int fd, off64_t length) { return set_length(fd, length, 0, 0, false); }
int ftruncate(int fd, off_t length) { return set_length(fd, length, 0, 0, false); }
int fallocate64(int fd, int mode, off64_t at, off64_t length) {
    return set_length(fd, length, mode, at, true);
}
int fallocate(int fd, int mode, off_t at, off_t length) {
    return set_length(fd, length, mode, at, true);
}
int posix_fallocate64(int fd, off64_t at, off64_t length) {
    return set_length(fd, length, 0, at, true) == 0 ? 0 : errno;
}
int posix_fallocate(int fd, off_t at, off_t length) { return posix_fallocate64(fd, at, length); }

/* The name is about to be gone: so are the dirty bytes of a file without another name. */
static void forget(const char *path) {
    struct stat st;
    int before = errno;
    if (directory_length > 0 && lstat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink == 1) {
        pthread_mutex_lock(&lock);
        struct file *f = slot(&st);
        if (f != NULL && f->ino != 0) cut(f, 0);
        pthread_mutex_unlock(&lock);
    }
    errno = before;
}
int unlink(const char *path) {
    if (is_below(path)) wait_while_hung();
    forget(path);
    return syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}
int rename(const char *from, const char *to) {
    if (is_below(to)) wait_while_hung();
    forget(to);
    return syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

static void charge_read(int fd, ssize_t count) {
    struct stat st;
    if (count <= 0 || settings[READ_COST].value == 0 || enter(fd, &st) == NULL) return;
    int64_t done = reserve(count, settings[LATENCY_US].value);
    pthread_mutex_unlock(&lock);
    sleep_until(done);
}
ssize_t read(int fd, void *data, size_t count) {
    ssize_t result = syscall(SYS_read, fd, data, count);
    charge_read(fd, result);
    return result;
}
ssize_t pread64(int fd, void *data, size_t count, off64_t offset) {
    ssize_t result = syscall(SYS_pread64, fd, data, count, offset);
    charge_read(fd, result);
    return result;
}
ssize_t pread(int fd, void *data, size_t count, off_t offset) {
    return pread64(fd, data, count, offset);
}

/* A program that asks how much room there is gets the capacity's answer. The C library's function
 * is called, because its structure is not that of the system call. */
static void show_capacity(struct statvfs *fs) {
    pthread_mutex_lock(&lock);
    read_settings();
    int64_t capacity = settings[CAPACITY].value;
    int64_t left = capacity > 0 ? capacity - used_bytes() : 0;
    pthread_mutex_unlock(&lock);
    if (capacity == 0) return;
    fs->f_blocks = (fsblkcnt_t)capacity / fs->f_frsize;
    fs->f_bfree = fs->f_bavail = left > 0 ? (fsblkcnt_t)left / fs->f_frsize : 0;
}
_Static_assert(sizeof(struct statvfs) == sizeof(struct statvfs64), "one form of statvfs");

#define STATVFS(name, argument_type, argument, form, ours)       \
    int name(argument_type argument, struct form *fs) {          \
        int (*real)(argument_type, struct form *);               \
        *(void **)&real = dlsym(RTLD_NEXT, #name);               \
        int result = real(argument, fs);                         \
        if (result == 0 && (ours)) show_capacity((void *)fs);    \
        return result;                                           \
    }
STATVFS(statvfs, const char *, path, statvfs, is_below(path))
STATVFS(statvfs64, const char *, path, statvfs64, is_below(path))
STATVFS(fstatvfs, int, fd, statvfs, is_ours(fd) == 1)
STATVFS(fstatvfs64, int, fd, statvfs64, is_ours(fd) == 1)
