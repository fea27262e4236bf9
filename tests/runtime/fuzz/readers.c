/* The readers of what comes from outside, for libFuzzer and for files that it found.
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined -DFUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION \
 *         -I runtime/include -I runtime/src -I runtime/device tests/runtime/fuzz/readers.c \
 *         runtime/device/[a-z]*.c runtime/src/status.c -ldl -lm -o readers
 *     ./readers -max_total_time=600 -max_len=65536 corpus tests/runtime/fuzz/corpus
 *
 * The first byte of an input chooses the reader. With -DREPLAY the program has a main, which reads
 * the files that it is given: the regressions, in any build.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "array_file.h"
#include "manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool want_all(void *user, const char *name)
{
    (void)user;
    return name[0] != '~';
}

/* Every byte that a reader says is an array's must be there. */
static uint64_t touch(const array *a)
{
    uint64_t bytes = a->type.bytes;
    uint64_t sum = 0;
    for (uint32_t d = 0; d < a->rank; d++) {
        bytes *= a->shape[d];
    }
    for (uint64_t i = 0; i < bytes; i++) {
        sum += a->data[i];
    }
    return sum;
}

static void release(array_file *f)
{
    for (size_t i = 0; i < f->count; i++) {
        if (f->arrays[i].inflated != NULL) {
            (void)munmap(f->arrays[i].inflated, (size_t)f->arrays[i].inflated_bytes);
        }
    }
    free(f->arrays);
}

static void read_zip(const uint8_t *data, size_t size, pock_error *error)
{
    array_file f;
    memset(&f, 0, sizeof f);
    f.view = (file_view){data, size};
    f.path = "x.npz";
    f.error = error;
    if (zip_read(&f, want_all, NULL) == PK_OK) {
        for (size_t i = 0; i < f.count; i++) {
            (void)touch(&f.arrays[i]);
        }
    }
    release(&f);
}

static void read_npy(const uint8_t *data, size_t size)
{
    array a;
    memset(&a, 0, sizeof a);
    if (npy_parse(data, size, &a) == NULL) {
        (void)touch(&a);
    }
}

static void read_safetensors(const uint8_t *data, size_t size, pock_error *error)
{
    tensor_file t;
    memset(&t, 0, sizeof t);
    t.view = (file_view){data, size};
    t.file = -1;
    t.path = "x.safetensors";
    t.error = error;
    if (tensor_file_parse(&t) == PK_OK) {
        uint64_t sum = 0;
        for (size_t i = 0; i < t.count; i++) {
            for (uint64_t at = t.tensors[i].begin; at < t.tensors[i].end; at++) {
                sum += data[at];
            }
        }
        (void)sum;
        (void)tensor_file_number(&t, "pock.step", 0);
        (void)tensor_file_find(&t, "fc.weight");
    }
    free(t.tensors);
}

static void read_manifest(const uint8_t *data, size_t size, pock_error *error)
{
    manifest m;
    json key = {NULL, NULL};
    json value = {NULL, NULL};
    char name[64];
    port_spec spec;
    memset(&m, 0, sizeof m);
    m.view = (file_view){data, size};
    if (manifest_parse(&m, "x.pock", error) != PK_OK) {
        return;
    }
    json_walk walk = json_members(m.tensors);
    while (json_next(&walk, &key, &value)) {
        manifest_canonical(&m, key, name, sizeof name);
        (void)manifest_in_state_dict(&m, name);
    }
    for (uint32_t i = 0; i < 4u; i++) {
        (void)manifest_port(&m, "train_step", "inputs", i, &spec);
        (void)manifest_port(&m, "evaluate", "outputs", i, &spec);
    }
    const int sink = memfd_create("manifest", 0);
    new_file file = {"state.safetensors", "0123", 7};
    (void)manifest_write(&m, &file, 1, sink, "x.pock", error);
    (void)fclose(fdopen(sink, "w"));
}

static void read_deflate(const uint8_t *data, size_t size)
{
    static uint8_t out[1 << 16];
    (void)inflate_all(data, size, out, sizeof out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pock_error error;
    if (size == 0u) {
        return 0;
    }
    /* A copy of its own, so that a read behind its end is seen. */
    uint8_t *copy = malloc(size - 1u + (size == 1u));
    memcpy(copy, data + 1, size - 1u);
    switch (data[0] % 5u) {
    case 0:
        read_zip(copy, size - 1u, &error);
        break;
    case 1:
        read_npy(copy, size - 1u);
        break;
    case 2:
        read_safetensors(copy, size - 1u, &error);
        break;
    case 3:
        read_manifest(copy, size - 1u, &error);
        break;
    default:
        read_deflate(copy, size - 1u);
        break;
    }
    free(copy);
    return 0;
}

#if defined(REPLAY)
int main(int argc, char **argv)
{
    static uint8_t data[1 << 20];
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        if (file == NULL) {
            return 1;
        }
        const size_t size = fread(data, 1, sizeof data, file);
        (void)fclose(file);
        (void)LLVMFuzzerTestOneInput(data, size);
    }
    return 0;
}
#endif
