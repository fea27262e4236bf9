// Adapt a compiled model to samples as they arrive, from C++: no data file, one step at a time.
//
//     adapt MODEL.pock
//
// The samples are made up here: the first input is noise around a number that tells the class. On a
// device they would come from a sensor, with labels from the user.
#include <cstdint>
#include <cstdio>
#include <memory>
#include <random>
#include <stdexcept>
#include <vector>

#include "pock.h"

namespace {

using Model = std::unique_ptr<pock_model, decltype(&pock_close)>;

// libpock reports by status; a C++ program may prefer exceptions.
void check(pk_status status, const pock_model *model)
{
    if (status != PK_OK) {
        throw std::runtime_error(pock_message(model));
    }
}

Model open_model(const char *folder)
{
    pock_model *opened = nullptr;
    const pk_status status = pock_open(folder, nullptr, &opened);
    Model model(opened, pock_close); // set even if it failed, for the message
    check(status, model.get());
    return model;
}

std::size_t elements(const pk_tensor &tensor)
{
    std::size_t count = 1;
    for (std::uint32_t d = 0; d < tensor.rank; d++) {
        count *= static_cast<std::size_t>(tensor.shape[d]);
    }
    return count;
}

void adapt(pock_model *model)
{
    pock_info info;
    pock_input sample;
    pock_input label;
    check(pock_info_get(model, &info), model);
    check(pock_input_at(model, "train_step", 0, &sample), model);
    check(pock_input_at(model, "train_step", 1, &label), model);

    std::vector<float> x(elements(*sample.tensor) * info.micro_batches);
    std::vector<std::int64_t> y(info.batch_rows);
    std::mt19937 random(0);
    std::normal_distribution<float> noise(0.0F, 0.3F);
    std::uniform_int_distribution<std::int64_t> choose(label.low, label.high);
    const std::size_t row = x.size() / y.size();
    float loss = 0.0F;
    for (int step = 0; step < 100; step++) {
        for (std::size_t r = 0; r < y.size(); r++) {
            y[r] = choose(random);
            for (std::size_t i = 0; i < row; i++) {
                x[r * row + i] = static_cast<float>(y[r] % 2) - 0.5F + noise(random);
            }
        }
        const void *const inputs[] = {x.data(), y.data()};
        check(pock_train_step(model, 0.05F, inputs, &loss), model);
        if (step % 25 == 24) {
            std::printf("step %d: loss %.4f\n", step + 1, static_cast<double>(loss));
        }
    }
    check(pock_info_get(model, &info), model);
    std::printf("%llu steps in %.1f KiB of private memory\n",
                static_cast<unsigned long long>(info.step),
                static_cast<double>(info.memory.total_bytes) / 1024.0);
}

} // namespace

int main(int argc, char **argv)
{
    if (argc != 2) {
        std::fprintf(stderr, "usage: adapt MODEL.pock\n");
        return 2;
    }
    try {
        const Model model = open_model(argv[1]);
        adapt(model.get());
    } catch (const std::exception &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
    return 0;
}
