// LD_PRELOAD: what a kill, a power cut or a failing disk does to a process, and to those that it
// forks, at their n-th change of a folder and what is below it. Nothing happens before faults_arm.
// The changes are logged: what was written and not yet flushed is what a power cut takes away.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT, KILL, POWER_CUT, FAIL };

static char folder[PATH_MAX];
static long *count, at;  // the count is shared with forked processes
static int action, error, once, log_fd = -1;

#define REAL(name) ((__typeof__(name) *)dlsym(RTLD_NEXT, #name))

// once: only the n-th change fails, and those after it succeed.
void faults_arm(const char *below, long n, int what, int number, int only_once, const char *log) {
  at = n, action = what, error = number, once = only_once;
  count = mmap(NULL, sizeof *count, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  log_fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  snprintf(folder, sizeof folder, "%s", below);
}

// A program that is started with FAULTS_ARM is armed at once; what it starts is not.
__attribute__((constructor)) static void arm_at_start(void) {
  char below[PATH_MAX], log[PATH_MAX];
  long n;
  int what, number, only_once;
  const char *words = getenv("FAULTS_ARM");
  if (words != NULL &&
      sscanf(words, "%ld %d %d %d %4000s %4000s", &n, &what, &number, &only_once, below, log) == 6)
    faults_arm(below, n, what, number, only_once, log);
  if (words != NULL) unsetenv("LD_PRELOAD");
  unsetenv("FAULTS_ARM");
}

static const char *link_of(int fd, char *path) {
  char name[40];
  snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(name, path, PATH_MAX - 1);
  path[length < 0 ? 0 : length] = 0;
  return path;
}

static const char *whole(int dir, const char *path, char *buffer) {
  if (path[0] == '/') return path;
  if (dir == AT_FDCWD) {
    if (getcwd(buffer, PATH_MAX) == NULL) buffer[0] = 0;
  } else {
    link_of(dir, buffer);
  }
  size_t length = strlen(buffer);
  snprintf(buffer + length, PATH_MAX - length, "/%s", path);
  return buffer;
}

static int is_below(const char *path) {
  size_t length = strlen(folder);
  return count != NULL && strncmp(path, folder, length) == 0 &&
         (path[length] == '/' || path[length] == 0);
}

static void note(char what, const char *path, const char *other) {
  char line[2 * PATH_MAX + 8];
  int length = snprintf(line, sizeof line, "%c\t%s\t%s\n", what, path, other);
  syscall(SYS_write, log_fd, line, length);
}

static void end(void) {
  if (action == KILL) kill(getpid(), SIGKILL);
  if (action == POWER_CUT) kill(0, SIGKILL);
  for (;;) pause();
}

// Whether this change is hit: 0, or else the errno with which it fails. removes: it frees space.
static int strike(const char *path, int removes) {
  if (!is_below(path)) return 0;
  if (action == COUNT) note('C', path, "");
  long n = __atomic_add_fetch(count, 1, __ATOMIC_SEQ_CST);
  if (n < at || action == COUNT || (once && n > at)) return 0;
  if (action == FAIL) return error == ENOSPC && removes ? 0 : error;
  if (n == at) end();
  return 0;
}

#define FAIL_IF_STRUCK(path, removes)      \
  do {                                     \
    int struck = strike(path, removes);    \
    if (struck) { errno = struck; return -1; } \
  } while (0)

static int open_at(int dir, const char *name, int flags, mode_t mode, const char *real) {
  char buffer[PATH_MAX];
  const char *path = whole(dir, name, buffer);
  int changes = flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC);
  if (changes) FAIL_IF_STRUCK(path, 0);
  int (*open_real)(int, const char *, int, ...) = dlsym(RTLD_NEXT, real);
  int fd = open_real(dir, name, flags, mode);
  if (fd >= 0 && flags & O_TRUNC && is_below(path)) note('W', path, "");
  return fd;
}

#define OPEN(name, real)                                             \
  int name(const char *path, int flags, ...) {                       \
    va_list rest;                                                    \
    va_start(rest, flags);                                           \
    mode_t mode = va_arg(rest, mode_t);                              \
    va_end(rest);                                                    \
    return open_at(AT_FDCWD, path, flags, mode, real);               \
  }
#define OPENAT(name)                                                 \
  int name(int dir, const char *path, int flags, ...) {              \
    va_list rest;                                                    \
    va_start(rest, flags);                                           \
    mode_t mode = va_arg(rest, mode_t);                              \
    va_end(rest);                                                    \
    return open_at(dir, path, flags, mode, #name);                   \
  }
OPEN(open, "openat")
OPEN(open64, "openat64")
OPENAT(openat)
OPENAT(openat64)

// A write that is hit gets half of its bytes to the disk.
#define WRITE(name, declared, passed_half, passed)                   \
  ssize_t name declared {                                            \
    char buffer[PATH_MAX];                                           \
    const char *path = count == NULL ? "" : link_of(fd, buffer);     \
    if (!is_below(path)) return REAL(name) passed;                   \
    note('W', path, "");                                             \
    if (action == COUNT) note('C', path, "");                        \
    long n = __atomic_add_fetch(count, 1, __ATOMIC_SEQ_CST);         \
    if (n < at || action == COUNT || (once && n > at)) return REAL(name) passed; \
    if (n == at && size > 1) {                                       \
      ssize_t written = REAL(name) passed_half;                      \
      if (action == FAIL && error == ENOSPC) return written;         \
    }                                                                \
    if (action == FAIL) { errno = error; return -1; }                \
    if (n == at) end();                                              \
    return REAL(name) passed;                                        \
  }
WRITE(write, (int fd, const void *data, size_t size), (fd, data, size / 2), (fd, data, size))
WRITE(pwrite, (int fd, const void *data, size_t size, off_t place), (fd, data, size / 2, place),
      (fd, data, size, place))
WRITE(pwrite64, (int fd, const void *data, size_t size, off64_t place), (fd, data, size / 2, place),
      (fd, data, size, place))
WRITE(sendfile, (int fd, int from, off_t *place, size_t size), (fd, from, place, size / 2),
      (fd, from, place, size))
WRITE(sendfile64, (int fd, int from, off64_t *place, size_t size), (fd, from, place, size / 2),
      (fd, from, place, size))

#define ON_FILE(name, what, declared, passed)                        \
  int name declared {                                                \
    char buffer[PATH_MAX];                                           \
    const char *path = count == NULL ? "" : link_of(fd, buffer);     \
    FAIL_IF_STRUCK(path, 0);                                         \
    int failed = REAL(name) passed;                                  \
    if (!failed && is_below(path)) note(what, path, "");             \
    return failed;                                                   \
  }
ON_FILE(fsync, 'S', (int fd), (fd))
ON_FILE(fdatasync, 'S', (int fd), (fd))
ON_FILE(ftruncate, 'W', (int fd, off_t size), (fd, size))
ON_FILE(ftruncate64, 'W', (int fd, off64_t size), (fd, size))

void sync(void) {
  REAL(sync)();
  if (count != NULL) note('A', "", "");
}

// These return the errno.
#define ALLOCATE(name, type)                                         \
  int name(int fd, type place, type size) {                          \
    char buffer[PATH_MAX];                                           \
    int struck = strike(count == NULL ? "" : link_of(fd, buffer), 0); \
    return struck ? struck : REAL(name)(fd, place, size);            \
  }
ALLOCATE(posix_fallocate, off_t)
ALLOCATE(posix_fallocate64, off64_t)

// What is written through a map is written as far as a power cut is concerned.
#define MAP(name, type)                                              \
  void *name(void *place, size_t size, int access, int flags, int fd, type from) { \
    char buffer[PATH_MAX];                                           \
    if (count != NULL && fd >= 0 && access & PROT_WRITE && flags & MAP_SHARED && \
        is_below(link_of(fd, buffer)))                               \
      note('W', buffer, "");                                         \
    return REAL(name)(place, size, access, flags, fd, from);         \
  }
MAP(mmap, off_t)
MAP(mmap64, off64_t)

#define ON_PATH(name, removes, declared, dir, given, passed)         \
  int name declared {                                                \
    char buffer[PATH_MAX];                                           \
    FAIL_IF_STRUCK(whole(dir, given, buffer), removes);              \
    return REAL(name) passed;                                        \
  }
ON_PATH(mkdir, 0, (const char *path, mode_t mode), AT_FDCWD, path, (path, mode))
ON_PATH(mkdirat, 0, (int dir, const char *path, mode_t mode), dir, path, (dir, path, mode))
ON_PATH(rmdir, 1, (const char *path), AT_FDCWD, path, (path))
ON_PATH(unlink, 1, (const char *path), AT_FDCWD, path, (path))
ON_PATH(unlinkat, 1, (int dir, const char *path, int flags), dir, path, (dir, path, flags))
ON_PATH(symlink, 0, (const char *to, const char *path), AT_FDCWD, path, (to, path))
ON_PATH(symlinkat, 0, (const char *to, int dir, const char *path), dir, path, (to, dir, path))

#define ON_TWO(name, what, declared, from_dir, to_dir, passed)       \
  int name declared {                                                \
    char one[PATH_MAX], other[PATH_MAX];                             \
    const char *path = whole(to_dir, to, other);                     \
    FAIL_IF_STRUCK(path, 0);                                         \
    const char *before = whole(from_dir, from, one);                 \
    int failed = REAL(name) passed;                                  \
    if (!failed && is_below(path)) note(what, before, path);         \
    return failed;                                                   \
  }
ON_TWO(rename, 'R', (const char *from, const char *to), AT_FDCWD, AT_FDCWD, (from, to))
ON_TWO(renameat, 'R', (int dir, const char *from, int new, const char *to), dir, new,
       (dir, from, new, to))
ON_TWO(link, 'L', (const char *from, const char *to), AT_FDCWD, AT_FDCWD, (from, to))
ON_TWO(linkat, 'L', (int dir, const char *from, int new, const char *to, int flags), dir, new,
       (dir, from, new, to, flags))
