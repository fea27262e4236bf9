/* data.h: rows of a data set on their way into an entry's inputs. */
#ifndef POCK_DATA_H
#define POCK_DATA_H

#include "array_file.h"
#include "model.h"
#include "order.h"

/* Some rows of a column; a folder may keep them in several files. */
typedef struct segment {
    const uint8_t *data;
    uint64_t first; /* number of its first row */
    uint64_t rows;
} segment;

/* The data of one input. */
typedef struct column {
    element type;
    uint64_t row_elements; /* all elements, if the input is not batched */
    segment *segments;
    size_t count;
    uint64_t rows;
} column;

struct pock_data {
    pock_model *model;
    const entry_spec *entry;
    const char *name;
    char path[POCK_PATH_BYTES];
    uint64_t rows;
    column columns[POCK_MAX_PORTS];
    array_file *files;
    size_t file_count;
    file_view *views;
    size_t view_count;
};

/* Which rows of the data a call takes. */
typedef struct row_pick {
    const row_order *order; /* NULL: as they come */
    uint64_t first;
    uint64_t rows; /* from `first` on; a call that takes more gets the last one again */
} row_pick;

/* Check the integers of `rows` rows; PK_E_DATA_VALUES says which is wrong. */
pk_status data_check(const pock_data *data, const row_pick *pick, uint64_t rows);
/* Put `rows` rows where the entry reads them, and what is not batched as a whole. */
pk_status data_place(const pock_data *data, const row_pick *pick, uint64_t rows);
/* Which of the rows holds a NaN or an infinity, UINT64_MAX if none, and in which input. */
uint64_t data_find_nonfinite(const pock_data *data, const row_pick *pick, uint64_t rows,
                             const char **input);

#endif
