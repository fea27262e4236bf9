/* Checkpoints and exports. */
#include <inttypes.h>
#include <stdio.h>

#include "listing.h"

pk_status write_state(pock_model *model, replacement *r, const char *frozen_hash,
                             const char *run)
{
    listing l;
    metadata_item metadata[5];
    char step_text[24];
    char seed_text[24];
    uint64_t step = 0;
    int64_t seed = 0;
    size_t count = 0;
    pk_status status = listing_begin(&l, model);
    if (status != PK_OK) {
        return status;
    }
    list_program(&l, frozen_hash == NULL, true);
    if (frozen_hash == NULL) {
        list_unread(&l, true);
    }
    (void)model->core.progress_get(model->context, &step, &seed);
    (void)snprintf(step_text, sizeof step_text, "%" PRIu64, step);
    (void)snprintf(seed_text, sizeof seed_text, "%" PRId64, seed);
    metadata[count++] = (metadata_item){"format", "pt"};
    if (frozen_hash != NULL) {
        metadata[count++] = (metadata_item){"pock.frozen", frozen_hash};
    }
    if (run != NULL) {
        metadata[count++] = (metadata_item){"pock.run", run};
    }
    metadata[count++] = (metadata_item){"pock.seed", seed_text};
    metadata[count++] = (metadata_item){"pock.step", step_text};
    status = write_listing(&l, r, metadata, count);
    listing_end(&l);
    return status;
}

pk_status state_save(pock_model *model, const char *path, uint32_t flags, const char *run)
{
    replacement r;
    /* A file that others complete must be able to: frozen tensors that were given other values are
     * nowhere else. */
    const bool full =
        (flags & POCK_FULL) != 0u || model->core.frozen_changed(model->context) != 0u;
    pk_status status = state_check_finite(model);
    status = status == PK_OK ? replace_begin(&r, path, &model->error) : status;
    if (status != PK_OK) {
        return status;
    }
    status = write_state(model, &r, full ? NULL : model->frozen_hash, run);
    if (status == PK_OK) {
        return replace_end(&r, true);
    }
    replace_abandon(&r);
    return status;
}

pk_status pock_save_checkpoint(pock_model *model, const char *path, uint32_t flags)
{
    const pk_status status = model_check_open(model);
    if (status != PK_OK || path == NULL) {
        return status != PK_OK ? status : PK_E_ARGUMENT;
    }
    return state_save(model, path, flags, NULL);
}

pk_status pock_export(pock_model *model, const char *path)
{
    replacement r;
    listing l;
    const metadata_item metadata = {"format", "pt"};
    pk_status status = model_check_open(model);
    if (status != PK_OK || path == NULL) {
        return status != PK_OK ? status : PK_E_ARGUMENT;
    }
    status = state_check_finite(model);
    status = status == PK_OK ? replace_begin(&r, path, &model->error) : status;
    if (status != PK_OK) {
        return status;
    }
    status = listing_begin(&l, model);
    if (status == PK_OK) {
        list_program(&l, true, false);
        list_unread(&l, false);
        list_aliases(&l);
        status = write_listing(&l, &r, &metadata, 1);
        listing_end(&l);
    }
    if (status == PK_OK) {
        return replace_end(&r, false);
    }
    replace_abandon(&r);
    return status;
}
