/* A stand-in for the CUDA driver: device memory is memory of the host, and every call is checked.
   FAKE_CUDA_FAIL names a function that fails with error 2 (out of memory), FAKE_CUDA_FAIL_AT which of its calls since
   fake_count. */
#include <stdlib.h>
#include <string.h>
#include <stdio.h>

#define MOST 64
static void *live[MOST];
static size_t sizes[MOST];
static int context = 0, streams = 0;

static int seen = 0;
void fake_count(void) { seen = 0; }
static int fails(const char *name) {
    const char *wanted = getenv("FAKE_CUDA_FAIL"), *at = getenv("FAKE_CUDA_FAIL_AT");
    if (!wanted || strcmp(wanted, name) != 0) return 0;
    return !at || ++seen == atoi(at);
}
#define MAY_FAIL(name) if (fails(name)) return 2

static int keep(void **out, size_t count) {
    for (int i = 0; i < MOST; i++)
        if (!live[i]) {
            live[i] = calloc(1, count);
            sizes[i] = count;
            *out = live[i];
            return 0;
        }
    return 2;
}
static int drop(void *address) {
    for (int i = 0; i < MOST; i++)
        if (live[i] && live[i] == address) { free(address); live[i] = NULL; return 0; }
    return 1;
}
static int holds(void *address, size_t count) {
    for (int i = 0; i < MOST; i++)
        if (live[i] && live[i] == address) return count <= sizes[i];
    return 0;
}

int fake_live(void) {
    int found = streams;
    for (int i = 0; i < MOST; i++) found += live[i] != NULL;
    return found;
}
int cuGetErrorString(int code, const char **text) {
    *text = code == 2 ? "out of memory" : "invalid value";
    return 0;
}
int cuInit(unsigned flags) { MAY_FAIL("cuInit"); return flags == 0 ? 0 : 1; }
int cuDeviceGet(int *device, int ordinal) { *device = 7; return ordinal == 0 ? 0 : 1; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    if (device != 7) return 1;
    const char *sm = getenv("FAKE_CUDA_SM");
    int major = 8, minor = 7;
    if (sm) sscanf(sm, "%d.%d", &major, &minor);
    *value = attribute == 75 ? major : attribute == 76 ? minor : -1;
    return 0;
}
int cuDeviceGetName(char *text, int count, int device) {
    strncpy(text, "Orin", count);
    return device == 7 ? 0 : 1;
}
int cuDevicePrimaryCtxRetain(void **made, int device) { *made = &context; return device == 7 ? 0 : 1; }
int cuCtxSetCurrent(void *given) { context = given == &context; return context ? 0 : 1; }
int cuMemAlloc_v2(void **address, size_t count) {
    MAY_FAIL("cuMemAlloc_v2");
    return context ? keep(address, count) : 1;
}
int cuMemFree_v2(void *address) { return drop(address); }
int cuMemAllocHost_v2(void **address, size_t count) {
    MAY_FAIL("cuMemAllocHost_v2");
    return keep(address, count);
}
int cuMemFreeHost(void *address) { return drop(address); }
int cuStreamCreate(void **stream, unsigned flags) {
    MAY_FAIL("cuStreamCreate");
    streams++;
    *stream = &streams;
    return flags == 0 ? 0 : 1;
}
int cuStreamDestroy_v2(void *stream) { streams--; return stream == &streams ? 0 : 1; }
static int copied(void *to, void *from, size_t count, void *stream) {
    if (stream != &streams || !holds(to, count) || !holds(from, count)) return 1;
    memcpy(to, from, count);
    return 0;
}
int cuMemcpyHtoDAsync_v2(void *to, void *from, size_t count, void *stream) {
    MAY_FAIL("cuMemcpyHtoDAsync_v2");
    return copied(to, from, count, stream);
}
int cuMemcpyDtoHAsync_v2(void *to, void *from, size_t count, void *stream) {
    return copied(to, from, count, stream);
}
int cuStreamSynchronize(void *stream) { MAY_FAIL("cuStreamSynchronize"); return stream == &streams ? 0 : 1; }
