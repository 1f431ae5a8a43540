// LD_PRELOAD: CLOCK_REALTIME is STEP_S seconds further from its STEP_AFTER-th reading on.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <math.h>
#include <stdlib.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *time) {
  static int (*real)(clockid_t, struct timespec *);
  static double step_s;
  static long after, readings;
  if (real == NULL) {
    after = atol(getenv("STEP_AFTER"));
    step_s = atof(getenv("STEP_S"));
    real = dlsym(RTLD_NEXT, "clock_gettime");
  }
  int failed = real(clock, time);
  if (clock == CLOCK_REALTIME && __atomic_add_fetch(&readings, 1, __ATOMIC_RELAXED) >= after) {
    time->tv_sec += (long)floor(step_s);
    time->tv_nsec += lround((step_s - floor(step_s)) * 1e9);
    if (time->tv_nsec >= 1000000000) {
      time->tv_nsec -= 1000000000;
      time->tv_sec++;
    }
  }
  return failed;
}
