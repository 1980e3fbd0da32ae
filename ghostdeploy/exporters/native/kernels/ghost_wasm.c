/* What WebAssembly needs beside the network: memory that grows by pages, and the two functions of C's library that kernels
   call. Nothing is imported. */
#if defined(__wasm__)
#include "ghost_vector.h"

#define PAGE ((size_t)65536)
#define LINE ((size_t)64)

extern unsigned char __heap_base;
static size_t next;

/* Returns the address of memory that stays, divisible by 64; 0 where there is no more. A line is free behind each, because
   vectors read beyond ends. */
__attribute__((visibility("default"))) void *ghost_wasm_take(size_t size) {
    const size_t begin = ((next ? next : (size_t)&__heap_base) + LINE - 1) / LINE * LINE;
    const size_t have = __builtin_wasm_memory_size(0) * PAGE;
    if (size > (size_t)-1 - begin - LINE - PAGE) return 0;
    const size_t end = begin + size + LINE;
    if (end > have && __builtin_wasm_memory_grow(0, (end - have + PAGE - 1) / PAGE) == (size_t)-1) return 0;
    next = end;
    return (void *)begin;
}

/* The attribute keeps the compiler from making a call of memcpy of this loop. */
__attribute__((no_builtin("memcpy"))) void *memcpy(void *restrict to, const void *restrict from, size_t size) {
    unsigned char *out = to;
    const unsigned char *in = from;
    size_t at = 0;
    for (; at + 16 <= size; at += 16) *(gv_any *)(out + at) = *(const gv_any *)(in + at);
    for (; at < size; at++) out[at] = in[at];
    return to;
}

__attribute__((no_builtin("memset"))) void *memset(void *to, int value, size_t size) {
    unsigned char *out = to;
    const int32_t word = (int32_t)((unsigned char)value * 0x01010101u);
    const gv_bits words = {word, word, word, word};
    size_t at = 0;
    for (; at + 16 <= size; at += 16) *(gv_any *)(out + at) = (gv)words;
    for (; at < size; at++) out[at] = (unsigned char)value;
    return to;
}
#endif
