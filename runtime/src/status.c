#include "pock_core.h"

uint32_t pk_abi_version(void)
{
    return PK_ABI_VERSION;
}

const char *pk_status_text(pk_status status)
{
    switch (status) {
    case PK_OK:
        return "success";
    case PK_E_ARGUMENT:
        return "a null pointer, or an index or range that does not exist";
    case PK_E_MEMORY:
        return "the system refused the memory";
    case PK_E_THREADS:
        return "the system refused a thread";
    case PK_E_NOT_FOUND:
        return "no entry or tensor of that name";
    case PK_E_SIZE:
        return "a buffer's size is not the tensor's";
    case PK_E_KERNEL:
        return "a kernel reported an error";
    case PK_E_NONFINITE:
        return "the loss is NaN or infinite";
    case PK_E_FORKED:
        return "the process forked after the program was opened";
    case PK_E_PROGRAM:
        return "the program's tables contradict themselves";
    case PK_E_FROZEN:
        return "the file of frozen tensors is missing, too short, or cannot be mapped";
    case PK_E_NO_ARTIFACT:
        return "there is no artifact";
    case PK_E_VERSION:
        return "made for another version";
    case PK_E_TARGET:
        return "compiled for another processor or system";
    case PK_E_DAMAGED:
        return "a file is missing, cut off or changed";
    case PK_E_LIBRARY:
        return "the system does not load the library";
    case PK_E_TOO_LARGE:
        return "more memory is needed than there is";
    case PK_E_MISMATCH:
        return "the checkpoint does not fit";
    case PK_E_NO_CHECKPOINT:
        return "there is no such checkpoint";
    case PK_E_DATA_FILE:
        return "the data cannot be read";
    case PK_E_DATA_NAMES:
        return "the data lacks an input";
    case PK_E_DATA_SHAPE:
        return "the data has the wrong shape, type or number of rows";
    case PK_E_DATA_VALUES:
        return "the data has a value that the model does not take";
    case PK_E_OPTION:
        return "a setting is no good";
    case PK_E_WRITE:
        return "the system refused to write";
    case PK_E_BUSY:
        return "another process is writing there";
    case PK_E_STOPPED:
        return "stopped, as asked";
    }
    return "unknown status";
}
