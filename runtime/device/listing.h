/* listing.h: which tensors a file of the state gets, and from where. */
#ifndef POCK_LISTING_H
#define POCK_LISTING_H

#include "model.h"

/* What a file will hold, and where it comes from. */
typedef struct listing {
    pock_model *model;
    tensor_file frozen; /* the artifact's file, for what no step reads */
    char path[POCK_PATH_BYTES];
    new_tensor *tensors;
    size_t count;
    char **names; /* those that were made here */
    size_t name_count;
    bool failed;
} listing;

/* Room for every tensor, and for those that are tied again under their second names. */
pk_status listing_begin(listing *l, pock_model *model);
void listing_end(listing *l);
/* The program's tensors: what steps change, and if `full` what they only read; the optimizer's and
 * the buffers that no state_dict has only with `optimizer`. */
void list_program(listing *l, bool full, bool optimizer);
/* The model's tensors that no step reads; those that no state_dict has only if `hidden`. */
void list_unread(listing *l, bool hidden);
/* Tied tensors again, under their other names. */
void list_aliases(listing *l);
/* All that the file of frozen tensors holds, in its order, the program's with their present values. */
void list_frozen(listing *l);
/* In the order of Python's files. */
pk_status write_listing(listing *l, replacement *r, const metadata_item *metadata,
                        size_t metadata_count);

/* The state with optimizer and progress: all of the model's tensors, or, if `frozen_hash` is given,
 * those that steps change. `run` is a note of the training loop, or NULL. */
pk_status write_state(pock_model *model, replacement *r, const char *frozen_hash, const char *run);

#endif
