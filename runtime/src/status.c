#include "pock.h"

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
    }
    return "unknown status";
}
