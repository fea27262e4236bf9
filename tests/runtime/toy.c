/* A linear classifier by hand: rows of 3 features, 5 classes, 4 rows in a call.
 *
 * logits = scale * (x - mean) W^T; W is kept as (3, 5), that is with layout 1,0.
 */
#include <math.h>
#include <stdint.h>

enum { N = 4, C = 3, K = 5 };

/* What TVM puts into every object with a parallel loop. */
typedef struct env {
    void *sync_handle;
    int32_t tasks;
} env;
typedef int (*body)(int, env *, void *);
int (*__TVMBackendParallelLaunch)(body, void *, int) __attribute__((weak));

typedef struct closure {
    const float *x, *w, *mean, *scale;
    float *logits;
} closure;

static int forward_rows(int task, env *e, void *argument)
{
    const closure *c = argument;
    for (int n = task; n < N; n += e->tasks) {
        for (int k = 0; k < K; k++) {
            float sum = 0.0f;
            for (int i = 0; i < C; i++) {
                sum += (c->x[n * C + i] - c->mean[i]) * c->w[i * K + k];
            }
            c->logits[n * K + k] = c->scale[0] * sum;
        }
    }
    return 0;
}

int32_t toy_forward(const float *x, const float *w, const float *mean, const float *scale,
                    float *logits)
{
    closure c = {x, w, mean, scale, logits};
    return __TVMBackendParallelLaunch(forward_rows, &c, 0);
}

static float log_sum_exp(const float *row)
{
    float top = row[0], sum = 0.0f;
    for (int k = 1; k < K; k++) {
        top = row[k] > top ? row[k] : top;
    }
    for (int k = 0; k < K; k++) {
        sum += expf(row[k] - top);
    }
    return top + logf(sum);
}

int32_t toy_loss_rows(const float *logits, const int64_t *target, float *rows)
{
    for (int n = 0; n < N; n++) {
        const int ignored = target[n] < 0;
        const float *row = logits + n * K;
        rows[n] = ignored ? 0.0f : log_sum_exp(row) - row[target[n]];
    }
    return 0;
}

int32_t toy_counted(const int64_t *target, float *rows)
{
    for (int n = 0; n < N; n++) {
        rows[n] = target[n] < 0 ? 0.0f : 1.0f;
    }
    return 0;
}

int32_t toy_correct(const float *logits, const int64_t *target, float *rows)
{
    for (int n = 0; n < N; n++) {
        int best = 0;
        for (int k = 1; k < K; k++) {
            best = logits[n * K + k] > logits[n * K + best] ? k : best;
        }
        rows[n] = best == target[n] ? 1.0f : 0.0f;
    }
    return 0;
}

int32_t toy_mean(const float *rows, float *loss)
{
    loss[0] = (rows[0] + rows[1] + rows[2] + rows[3]) / N;
    return 0;
}

/* dW, added to `sum`. */
int32_t toy_gradient(const float *x, const float *mean, const float *scale, const float *logits,
                     const int64_t *target, float *sum)
{
    for (int n = 0; n < N; n++) {
        const float *row = logits + n * K;
        const float lse = log_sum_exp(row);
        for (int k = 0; k < K && target[n] >= 0; k++) {
            const float d = (expf(row[k] - lse) - (target[n] == k ? 1.0f : 0.0f)) / N;
            for (int i = 0; i < C; i++) {
                sum[i * K + k] += scale[0] * d * (x[n * C + i] - mean[i]);
            }
        }
    }
    return 0;
}

/* Momentum .9 in place; the gradient is a sum over `parts` calls and is cleared. */
static int32_t update(float *sum, const float *lr, float *momentum, float *w, float parts)
{
    for (int i = 0; i < C * K; i++) {
        momentum[i] = 0.9f * momentum[i] + sum[i] / parts;
        w[i] -= lr[0] * momentum[i];
        sum[i] = 0.0f;
    }
    return 0;
}

int32_t toy_update_1(float *sum, const float *lr, float *momentum, float *w)
{
    return update(sum, lr, momentum, w, 1.0f);
}

int32_t toy_update_2(float *sum, const float *lr, float *momentum, float *w)
{
    return update(sum, lr, momentum, w, 2.0f);
}

int32_t toy_fail(const float *x)
{
    (void)x;
    return 7;
}
