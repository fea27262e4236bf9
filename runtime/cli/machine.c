#include <stdio.h>
#include <unistd.h>

#include "cli.h"

int run_peak(int argc, char **argv)
{
    uint64_t threads = 0;
    bool json = false;
    const option options[] = {{"--threads", OPTION_COUNT, &threads, 1},
                              {"--json", OPTION_FLAG, &json, 0}};
    if (!read_options(argc, argv, options, sizeof options / sizeof options[0], NULL)) {
        return EXIT_USAGE;
    }
    if (threads == 0u) {
        const long found = sysconf(_SC_NPROCESSORS_ONLN);
        threads = found < 1 ? 1u : (uint64_t)found;
    }
    const uint32_t used = threads > UINT32_MAX ? UINT32_MAX : (uint32_t)threads;
    const peak found = measure_peak(used);
    if (json) {
        json_begin("peak");
        json_text("cpu", cpu_name());
        json_count("threads", used);
        json_number("gflops", found.gflops);
        json_number("gbs", found.gbs);
        json_end();
        return 0;
    }
    (void)printf("cpu      %s, %u threads\n", cpu_name(), used);
    (void)printf("compute  %.4g GFLOP/s of fused multiply-adds\n", found.gflops);
    (void)printf("memory   %.4g GB/s (triad)\n", found.gbs);
    return 0;
}
