/* What `train` and `bench` do for --profile. */
#include "cli.h"

void profiling_before(profiling *p)
{
    p->rss_before = p->path == NULL ? 0u : resident_bytes();
}

pk_status profiling_begin(profiling *p, pock_model *model, uint64_t steps)
{
    p->load_ms = (double)(now_ns() - process_begin_ns) / 1e6;
    const uint32_t most = steps > UINT32_MAX ? UINT32_MAX : (uint32_t)steps;
    return p->path == NULL ? PK_OK : pock_profile_begin(model, most, &p->profile);
}

pk_status profiling_write(profiling *p, pock_model *model, uint64_t batch_bytes)
{
    if (p->profile == NULL) {
        return PK_OK;
    }
    pock_info info;
    /* Before the peaks are measured, which takes memory. */
    const uint64_t resident = peak_bytes();
    (void)pock_info_get(model, &info);
    const peak found = measure_peak(info.threads);
    const pock_profile_facts facts = {p->load_ms,   found.gflops, found.gbs, p->rss_before,
                                      resident, batch_bytes,  cpu_name()};
    return pock_profile_write(p->profile, &facts, p->path);
}
