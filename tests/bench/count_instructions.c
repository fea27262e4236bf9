/* A plugin for qemu-user that counts the instructions of a program.
 *
 * The few declarations are those of qemu-plugin.h, which Debian does not package. Only what every
 * version of the interface has is used: a call per translated block.
 */
#include <inttypes.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifndef API_VERSION
#define API_VERSION 1
#endif

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
typedef void (*on_translation)(qemu_plugin_id_t id, struct qemu_plugin_tb *block);
typedef void (*on_execution)(unsigned int processor, void *user);
typedef void (*on_exit)(qemu_plugin_id_t id, void *user);
enum { NO_REGISTERS = 0 };

extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, on_translation call);
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *block, on_execution call,
                                                 int registers, void *user);
extern void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id, on_exit call, void *user);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
extern void qemu_plugin_outs(const char *text);

EXPORT int qemu_plugin_version = API_VERSION;

static _Atomic uint64_t total;

static void count(unsigned int processor, void *user)
{
    (void)processor;
    atomic_fetch_add_explicit(&total, (uint64_t)(uintptr_t)user, memory_order_relaxed);
}

static void watch(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
    (void)id;
    void *size = (void *)(uintptr_t)qemu_plugin_tb_n_insns(block);
    qemu_plugin_register_vcpu_tb_exec_cb(block, count, NO_REGISTERS, size);
}

static void report(qemu_plugin_id_t id, void *user)
{
    (void)id;
    (void)user;
    char text[64];
    (void)snprintf(text, sizeof text, "instructions %" PRIu64 "\n", total);
    qemu_plugin_outs(text);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv);

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv)
{
    (void)info;
    (void)argc;
    (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, watch);
    qemu_plugin_register_atexit_cb(id, report, NULL);
    return 0;
}
