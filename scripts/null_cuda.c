// A CUDA driver without a GPU, and cuBLASLt with it: kernels take a set time and compute nothing. It shows what the host
// does in a step, and how long a GPU would wait for it. scripts/gpu_host.sh builds and uses it.
//
// Time of the device passes in one queue: each launch and each product takes NULL_CUDA_US microseconds. Waiting for an
// event or a stream sleeps until its work is done. Copies take no time. What is read back is 0; the first read (the check
// of the device, 1 + 1 + 1 + 1) is 4, and pairs of floats (the control of a step) are 1.
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define API __attribute__((visibility("default"))) int
typedef unsigned long long u64;

static atomic_ullong next_address = 0x7f0000000000ULL, launches, products, reads;
static double device_free, device_busy, device_idle, launch_s = -1;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

static void report(void) {
    fprintf(stderr, "null cuda: %llu launches, %llu products, %llu reads; device busy %.3f s, idle between %.3f s\n",
            launches, products, reads, device_busy, device_idle);
}

// Called from the one thread on which CubeCL calls the driver.
static void work(void) {
    if (launch_s < 0) {
        const char *us = getenv("NULL_CUDA_US");
        launch_s = us ? 1e-6 * atof(us) : 0;
    }
    double n = now();
    if (device_free < n) {
        if (device_free > 0) device_idle += n - device_free;
        device_free = n;
    }
    device_free += launch_s;
    device_busy += launch_s;
}

static int sleep_until(double t) {
    double left = t - now();
    if (left > 0) usleep((useconds_t)(1e6 * left));
    return 0;
}

static int object(void **p) {
    *p = calloc(1, 256);
    return 0;
}

// Devices and contexts: one H100.
API cuInit(unsigned f) { static atomic_int once; if (!atomic_exchange(&once, 1)) atexit(report); return 0; }
API cuDriverGetVersion(int *v) { *v = 13000; return 0; }
API cuDeviceGet(int *d, int n) { *d = n; return n > 0 ? 101 : 0; }
API cuDeviceGetCount(int *n) { *n = 1; return 0; }
API cuDeviceGetName(char *s, int n, int d) { snprintf(s, n, "NVIDIA H100 80GB HBM3"); return 0; }
API cuDeviceGetAttribute(int *v, int attribute, int d) {
    switch (attribute) {
    case 1: case 2: case 3: *v = 1024; break;   // threads of a block, and along its sides
    case 4: *v = 64; break;
    case 5: *v = 2147483647; break;             // blocks along the sides of a grid
    case 6: case 7: *v = 65535; break;
    case 8: *v = 49152; break;                  // shared memory of a block
    case 10: *v = 32; break;                    // threads of a warp
    case 12: *v = 65536; break;
    case 16: *v = 132; break;                   // multiprocessors
    case 39: *v = 2048; break;
    case 75: *v = 9; break;                     // compute capability
    case 81: *v = 233472; break;
    case 97: *v = 232448; break;
    case 115: *v = 1; break;                    // memory pools
    default: *v = 0;
    }
    return 0;
}
API cuDeviceTotalMem_v2(size_t *b, int d) { *b = 85000000000ULL; return 0; }
API cuDeviceGetPCIBusId(char *s, int n, int d) { snprintf(s, n, "0000:01:00.0"); return 0; }
API cuDeviceGetLuid(char *l, unsigned *m, int d) { return 801; }
API cuDeviceGetUuid_v2(void *u, int d) { memset(u, 1, 16); return 0; }
API cuDevicePrimaryCtxRetain(void **c, int d) { *c = (void *)0x1000; return 0; }
API cuCtxSetCurrent(void *c) { return 0; }
API cuCtxGetCurrent(void **c) { *c = (void *)0x1000; return 0; }
API cuCtxGetStreamPriorityRange(int *a, int *b) { *a = 0; *b = -5; return 0; }

// Streams and events: all are one queue.
API cuStreamCreate(void **s, unsigned f) { return object(s); }
API cuStreamCreateWithPriority(void **s, unsigned f, int p) { return object(s); }
API cuStreamDestroy_v2(void *s) { return 0; }
API cuStreamSynchronize(void *s) { return sleep_until(device_free); }
API cuStreamWaitEvent(void *s, void *e, unsigned f) { return 0; }
API cuEventCreate(void **e, unsigned f) { return object(e); }
API cuEventDestroy_v2(void *e) { free(e); return 0; }
API cuEventRecord(void *e, void *s) { *(double *)e = device_free; return 0; }
API cuEventQuery(void *e) { return 0; }
API cuEventSynchronize(void *e) { return sleep_until(*(double *)e); }
API cuEventElapsedTime_v2(float *ms, void *a, void *b) { *ms = 1; return 0; }
API cuEventElapsedTime(float *ms, void *a, void *b) { *ms = 1; return 0; }
API cuCtxRecordEvent(void *c, void *e) { return 0; }
API cuCtxWaitEvent(void *c, void *e) { return 0; }

// Memory: addresses without memory behind them.
static int allocate(u64 *p, size_t n) { *p = atomic_fetch_add(&next_address, (n + 511) & ~511ULL); return 0; }
API cuMemAlloc_v2(u64 *p, size_t n) { return allocate(p, n); }
API cuMemAllocAsync(u64 *p, size_t n, void *s) { return allocate(p, n); }
API cuMemFree_v2(u64 p) { return 0; }
API cuMemFreeAsync(u64 p, void *s) { return 0; }
API cuMemGetInfo_v2(size_t *f, size_t *t) { *f = 80000000000ULL; *t = 85000000000ULL; return 0; }
API cuMemAllocHost_v2(void **p, size_t n) { *p = aligned_alloc(4096, (n + 4095) & ~4095ULL); return 0; }
API cuMemFreeHost(void *p) { free(p); return 0; }
API cuMemcpyHtoDAsync_v2(u64 d, void *h, size_t n, void *s) { return 0; }
API cuMemcpyDtoDAsync_v2(u64 a, u64 b, size_t n, void *s) { return 0; }
API cuMemcpy2DAsync_v2(void *c, void *s) { return 0; }
API cuMemsetD8Async(u64 d, unsigned char v, size_t n, void *s) { return 0; }
API cuMemcpyDtoHAsync_v2(void *h, u64 d, size_t n, void *s) {
    float fill = atomic_fetch_add(&reads, 1) == 0 ? 4 : n == 8 ? 1 : 0;
    for (size_t i = 0; i + 4 <= n; i += 4) memcpy((char *)h + i, &fill, 4);
    return 0;
}

// Kernels.
API cuModuleLoadData(void **m, const void *i) { return object(m); }
API cuModuleLoadDataEx(void **m, const void *i, unsigned n, void *o, void *v) { return object(m); }
API cuModuleUnload(void *m) { free(m); return 0; }
API cuModuleGetFunction(void **f, void *m, const char *n) { return object(f); }
API cuFuncSetAttribute(void *f, int a, int v) { return 0; }
API cuFuncGetAttribute(int *v, int a, void *f) { *v = 0; return 0; }
API cuLaunchKernel(void *f, unsigned a, unsigned b, unsigned c, unsigned d, unsigned e, unsigned g, unsigned m, void *s,
                   void **k, void **x) { launches++; work(); return 0; }
API cuLaunchKernelEx(void *c, void *f, void **k, void **x) { launches++; work(); return 0; }
API cuGetErrorName(int e, const char **s) { *s = "NULL_CUDA"; return 0; }
API cuGetErrorString(int e, const char **s) { *s = "the null driver does not do this"; return 0; }

// cuBLASLt.
size_t __attribute__((visibility("default"))) cublasLtGetVersion(void) { return 130100; }
API cublasLtCreate(void **h) { return object(h); }
API cublasLtMatmulDescCreate(void **d, int c, int s) { return object(d); }
API cublasLtMatmulDescSetAttribute(void *d, int a, const void *v, size_t n) { return 0; }
API cublasLtMatrixLayoutCreate(void **l, int t, uint64_t r, uint64_t c, int64_t ld) { return object(l); }
API cublasLtMatrixLayoutSetAttribute(void *l, int a, const void *v, size_t n) { return 0; }
API cublasLtMatmulPreferenceCreate(void **p) { return object(p); }
API cublasLtMatmulPreferenceDestroy(void *p) { free(p); return 0; }
API cublasLtMatmulPreferenceSetAttribute(void *p, int a, const void *v, size_t n) { return 0; }
struct heuristic { u64 algorithm[8]; size_t workspace; int state; float waves; int reserved[4]; };
API cublasLtMatmulAlgoGetHeuristic(void *h, void *o, void *a, void *b, void *c, void *d, void *p, int n,
                                   struct heuristic *r, int *found) {
    memset(r, 0, sizeof *r * n);
    *found = n;
    return 0;
}
API cublasLtMatmul(void *h, void *o, void *x, void *a, void *la, void *b, void *lb, void *y, void *c, void *lc, void *d,
                   void *ld, void *g, void *w, size_t n, void *s) {
    // NULL_CUDA_FAIL=N: product N fails, which a run has to report.
    static int fails_at = -1;
    if (fails_at < 0) fails_at = getenv("NULL_CUDA_FAIL") ? atoi(getenv("NULL_CUDA_FAIL")) : 0;
    if (++products == (u64)fails_at) return 13;
    work();
    return 0;
}
