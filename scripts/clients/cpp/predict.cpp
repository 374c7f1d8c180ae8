// Predict with a bertsym bundle through MXNet's C predict API, from C++17: predict MODEL [INPUTS]
//
// INPUTS is the output of `bertsym tokenize`, one JSON object per line. The environment variable LIBMXNET names the
// library, which is opened at run time, so that one program works with every MXNet from 1.4 on.

// The header of MXNet >= 1.6 needs these three includes before it.
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <mxnet/c_predict_api.h>

#include <dlfcn.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

using nlohmann::json;

struct Error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// libmxnet.so, opened at run time; the header gives the types of its functions.
class Library {
    void *handle_;  // before the functions, which are found in it; never closed: MXNet's threads run until the end

public:
    explicit Library(const char *path) : handle_(path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : nullptr) {
        if (!handle_) throw Error(path ? dlerror() : "LIBMXNET is not set");
    }

    decltype(&MXGetLastError) last_error = find<decltype(&MXGetLastError)>("MXGetLastError");
    decltype(&MXPredCreate) create = find<decltype(&MXPredCreate)>("MXPredCreate");
    decltype(&MXPredSetInput) set_input = find<decltype(&MXPredSetInput)>("MXPredSetInput");
    decltype(&MXPredForward) forward = find<decltype(&MXPredForward)>("MXPredForward");
    decltype(&MXPredGetOutputShape) output_shape = find<decltype(&MXPredGetOutputShape)>("MXPredGetOutputShape");
    decltype(&MXPredGetOutput) output = find<decltype(&MXPredGetOutput)>("MXPredGetOutput");
    decltype(&MXPredFree) release = find<decltype(&MXPredFree)>("MXPredFree");
    int (*wait_all)() = find<int (*)()>("MXNDArrayWaitAll");  // of c_api.h

    // MXNet frees memory in its own threads: an exit meanwhile would sometimes abort or hang.
    ~Library() { wait_all(); }
    Library(const Library &) = delete;
    Library &operator=(const Library &) = delete;

    // MXNet's message has a stack trace after the first line.
    void check(int code, const char *what) const {
        if (code == 0) return;
        std::string message = last_error();
        throw Error(std::string(what) + ": " + message.substr(0, message.find('\n')));
    }

private:
    template <typename Function>
    Function find(const char *name) const {
        void *found = dlsym(handle_, name);
        if (!found) throw Error(dlerror());
        return reinterpret_cast<Function>(found);
    }
};

std::string read_file(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw Error(path + ": can't be read");
    return {std::istreambuf_iterator<char>(file), {}};
}

json parsed(const std::string &text, const std::string &where) {
    json document = json::parse(text, nullptr, false);
    if (!document.is_object()) throw Error(where + ": not a JSON object");
    return document;
}

std::string sha256(const std::string &bytes) {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
    unsigned int length = 0;
    if (!EVP_Digest(bytes.data(), bytes.size(), digest.data(), &length, EVP_sha256(), nullptr))
        throw Error("SHA-256 is not available");
    std::string text;
    for (unsigned int i = 0; i < length; ++i) {
        char pair[3];
        std::snprintf(pair, sizeof pair, "%02x", digest[i]);
        text += pair;
    }
    return text;
}

// Read a file whose size and SHA-256 must be those of the manifest.
std::string read_checked(const std::string &prefix, const std::string &name, const json &manifest) {
    const json &entry = manifest.at("files").at(name);
    std::string bytes = read_file(prefix + "-" + name);
    if (bytes.size() != entry.at("size") || sha256(bytes) != entry.at("sha256"))
        throw Error(prefix + "-" + name + ": differs from the manifest in size or SHA-256");
    return bytes;
}

json read_manifest(const std::string &prefix) {
    json manifest = parsed(read_file(prefix + "-manifest.json"), prefix + "-manifest.json");
    if (manifest.at("format_version") != 2)
        throw Error(prefix + ": bundle format " + manifest.at("format_version").dump() +
                    ", this program reads format 2");
    return manifest;
}

// The task of a head; an empty string for none.
std::string task_of(const json &signature) {
    auto task = signature.find("task");
    return task == signature.end() || task->is_null() ? "" : task->get<std::string>();
}

// Read the signature; refuse an untrained head, whose output is noise, and unknown tasks.
json read_signature(const std::string &prefix, const json &manifest) {
    json signature = parsed(read_checked(prefix, "signature.json", manifest), prefix + "-signature.json");
    if (signature.at("trained") == false && signature.at("kind") != "encoder")
        throw Error(prefix + ": untrained head: train it first, for example with bertsym finetune");
    const std::string task = task_of(signature);
    constexpr std::array tasks{"", "classification", "multilabel", "regression", "tagging", "qa"};
    if (std::find(tasks.begin(), tasks.end(), task) == tasks.end())
        throw Error(prefix + ": task " + task + ": not one of classification, multilabel, regression, tagging, qa");
    return signature;
}

// An input of the symbol: (batch, length), or (batch).
struct Input {
    std::string name;
    bool is_list;
    std::size_t fixed_length;  // 0 if it is free
    float padding;
    std::vector<mx_uint> shape{};
    std::vector<float> values{};
};

std::vector<Input> read_inputs(const json &signature) {
    std::vector<Input> inputs;
    for (const json &tensor : signature.at("inputs")) {
        const json &shape = tensor.at("shape");
        if (shape.empty() || shape.size() > 2) throw Error("an input is neither (batch, length) nor (batch)");
        bool is_list = shape.size() == 2;
        std::size_t length = is_list && shape[1].is_number_unsigned() ? shape[1].get<std::size_t>() : 0;
        // The first input has the token ids. A symbol that is not a BERT has no pad_id.
        float padding = inputs.empty() ? signature.value("pad_id", 0.0f) : 0.0f;
        inputs.push_back({tensor.at("name"), is_list, length, padding});
    }
    return inputs;
}

std::vector<json> read_rows(std::istream &stream) {
    std::vector<json> rows;
    for (std::string line; std::getline(stream, line);) {
        rows.push_back(json::parse(line, nullptr, false));
        if (!rows.back().is_object())
            throw Error("row " + std::to_string(rows.size()) +
                        ": not a JSON object: the rows are the output of bertsym tokenize");
    }
    if (rows.empty()) throw Error("no rows");
    return rows;
}

void check_number(const json &value, std::size_t low, std::size_t high, const std::string &name) {
    if (!value.is_number_unsigned() || value.get<std::size_t>() < low || value.get<std::size_t>() > high)
        throw Error(name + " must have integers from " + std::to_string(low) + " to " +
                    std::to_string(high));
}

// The length of a row's lists; a larger valid_length would make MXNet read out of bounds.
std::size_t check_row(const json &row, const std::vector<Input> &inputs) {
    std::size_t length = 0;
    for (const Input &input : inputs) {
        if (!row.contains(input.name) || row[input.name].is_array() != input.is_list)
            throw Error(input.name + " is not a " + (input.is_list ? "list" : "number"));
        if (!input.is_list) continue;
        const json &list = row[input.name];
        if (list.empty() || (length && list.size() != length)) throw Error("lists of different lengths, or empty");
        length = list.size();
        for (const json &item : list) check_number(item, 0, 1 << 24, input.name);
    }
    for (const Input &input : inputs)
        if (!input.is_list) check_number(row[input.name], 1, length, input.name);
    return length;
}

// The length of the batch: that of its longest row, or the fixed length of the symbol.
std::size_t batch_length(const std::vector<json> &rows, const std::vector<Input> &inputs, const json &signature) {
    std::size_t fixed = 0, longest = 0;
    for (const Input &input : inputs) fixed = std::max(fixed, input.fixed_length);
    std::size_t limit = fixed ? fixed : signature.value("max_length", std::numeric_limits<std::size_t>::max());
    for (std::size_t i = 0; i < rows.size(); ++i) {
        try {
            std::size_t length = check_row(rows[i], inputs);
            if (length > limit)
                throw Error(std::to_string(length) + " tokens, the model takes " + std::to_string(limit));
            longest = std::max(longest, length);
        } catch (const Error &error) {
            throw Error("row " + std::to_string(i + 1) + ": " + error.what());
        }
    }
    return fixed ? fixed : longest;
}

// Fill the input, and pad its lists.
void fill(Input &input, const std::vector<json> &rows, std::size_t length) {
    input.shape = {static_cast<mx_uint>(rows.size())};
    if (input.is_list) input.shape.push_back(static_cast<mx_uint>(length));
    for (const json &row : rows) {
        const json &value = row[input.name];
        if (input.is_list) {
            auto begin = input.values.insert(input.values.end(), length, input.padding);
            std::transform(value.begin(), value.end(), begin, [](const json &item) { return item.get<float>(); });
        } else {
            input.values.push_back(value.get<float>());
        }
    }
}

// The elements of the first output.
std::vector<float> forward(const Library &mxnet, const std::string &symbol, const std::string &params,
                           const std::vector<Input> &inputs) {
    std::vector<const char *> names;
    std::vector<mx_uint> starts{0}, shapes;
    for (const Input &input : inputs) {
        names.push_back(input.name.c_str());
        shapes.insert(shapes.end(), input.shape.begin(), input.shape.end());
        starts.push_back(static_cast<mx_uint>(shapes.size()));
    }
    if (params.size() > std::numeric_limits<int>::max())
        throw Error("MXPredCreate takes no more than 2 GiB of parameters");
    PredictorHandle handle = nullptr;
    mxnet.check(mxnet.create(symbol.c_str(), params.data(), static_cast<int>(params.size()), 1, 0,
                             static_cast<mx_uint>(names.size()), names.data(), starts.data(), shapes.data(), &handle),
                "MXPredCreate");
    std::unique_ptr<void, decltype(mxnet.release)> predictor(handle, mxnet.release);
    for (const Input &input : inputs)
        mxnet.check(mxnet.set_input(handle, input.name.c_str(), input.values.data(),
                                    static_cast<mx_uint>(input.values.size())),
                    "MXPredSetInput");
    mxnet.check(mxnet.forward(handle), "MXPredForward");
    mx_uint *shape = nullptr, dimensions = 0;
    mxnet.check(mxnet.output_shape(handle, 0, &shape, &dimensions), "MXPredGetOutputShape");
    std::vector<float> values(std::accumulate(shape, shape + dimensions, std::size_t{1}, std::multiplies<>()));
    mxnet.check(mxnet.output(handle, 0, values.data(), static_cast<mx_uint>(values.size())), "MXPredGetOutput");
    return values;
}

// The number of tokens of a row that are not padding.
std::size_t valid_length(const json &row, const std::vector<Input> &inputs) {
    for (const Input &input : inputs)
        if (!input.is_list) return row[input.name];
    return row[inputs[0].name].size();
}

std::size_t argmax(const float *values, std::size_t count) { return std::max_element(values, values + count) - values; }

// The labels whose probability reaches their threshold.
std::string labels_of(const json &settings, const std::vector<std::string> &names, const float *probabilities) {
    const std::string delimiter = settings.value("label_delimiter", ",");
    const auto thresholds = settings.value("thresholds", std::vector<double>());
    std::string labels;
    bool first = true;
    for (std::size_t i = 0; i < names.size(); ++i) {
        if (probabilities[i] < (i < thresholds.size() ? thresholds[i] : 0.5)) continue;
        labels += (first ? "" : delimiter) + names[i];
        first = false;
    }
    return labels;
}

// A list of `tokenize` that has an element for each token or word; decoding needs it.
const json &places(const json &row, const char *name) {
    if (!row.contains(name) || !row[name].is_array())
        throw Error(std::string("no ") + name + ": write the inputs with bertsym tokenize");
    return row[name];
}

// Add the tags of the words of a row, whose token is in "words"; `_` for a word without a token.
void add_tags(std::string &tags, const json &row, const std::vector<std::string> &names, const float *outputs,
              std::size_t tokens) {
    for (const json &word : places(row, "words")) {
        if (!word.is_null()) check_number(word, 0, tokens - 1, "words");
        if (!tags.empty()) tags += ' ';
        tags += word.is_null() ? "_" : names[argmax(outputs + names.size() * word.get<std::size_t>(), names.size())];
    }
}

// The best span of a context, in characters, and the logarithms of its probability and of that of no answer.
struct Span {
    std::size_t first = 0, last = 0;
    double score = -std::numeric_limits<double>::infinity();
    double no_answer = std::numeric_limits<double>::infinity();
};

// The logarithm of what the exponentials of a logit are divided by: their sum over the context and token 0.
double log_sum(const float *logits, const json &offsets) {
    double largest = logits[0], sum = 0;
    for (std::size_t i = 0; i < offsets.size(); ++i)
        if (!offsets[i].is_null()) largest = std::max(largest, double{logits[2 * i]});
    for (std::size_t i = 0; i < offsets.size(); ++i)
        if (i == 0 || !offsets[i].is_null()) sum += std::exp(logits[2 * i] - largest);
    return largest + std::log(sum);
}

// Find better spans in a window. The probability of a span is that of its first token times that of its last; that of
// no answer is that of token 0, the lowest of the windows.
void find_span(Span &best, const json &row, const float *logits, std::size_t tokens) {
    constexpr std::size_t longest_answer = 30;  // tokens
    const json &offsets = places(row, "offsets");
    if (offsets.size() != tokens)
        throw Error(std::to_string(offsets.size()) + " offsets for " + std::to_string(tokens) + " tokens");
    if (std::all_of(offsets.begin(), offsets.end(), [](const json &offset) { return offset.is_null(); }))
        throw Error("no second text: a question needs a context");
    for (const json &offset : offsets)
        if (!offset.is_null() && !(offset.is_array() && offset.size() == 2 && offset[0].is_number_unsigned() &&
                                   offset[1].is_number_unsigned()))
            throw Error("offsets must be pairs of integers, or null");
    const double sum = log_sum(logits, offsets) + log_sum(logits + 1, offsets);
    best.no_answer = std::min(best.no_answer, double{logits[0]} + logits[1] - sum);
    for (std::size_t i = 0; i < tokens; ++i) {
        if (offsets[i].is_null()) continue;
        for (std::size_t j = i; j < std::min(tokens, i + longest_answer) && !offsets[j].is_null(); ++j) {
            const double score = double{logits[2 * i]} + logits[2 * j + 1] - sum;
            const std::size_t start = offsets[i][0], end = offsets[j][1];
            if (score > best.score && start < end) best.score = score, best.first = start, best.last = end;
        }
    }
}

void print_span(std::ostream &out, const Span &span, const json &threshold) {
    if (threshold.is_number() && span.no_answer - span.score > threshold.get<double>())
        out << '\t';
    else
        out << span.first << '\t' << span.last;
    out << '\t' << std::exp(span.score) << '\t' << std::exp(span.no_answer) << '\n';
}

// The row after the last window of the text whose first window is a row: windows have the same number as "example".
std::size_t end_of_text(const std::vector<json> &rows, std::size_t row) {
    const json example = rows[row].value("example", json());
    std::size_t end = row + 1;
    while (!example.is_null() && end < rows.size() && rows[end].value("example", json()) == example) ++end;
    return end;
}

// Print a line per text, by the task of the signature; without a task and classes only the numbers.
void print_texts(const json &signature, const std::vector<json> &rows, const std::vector<Input> &inputs,
                 const std::vector<float> &values, std::size_t length) {
    const std::string task = task_of(signature);
    const json settings = signature.value("task_settings", json::object());
    const bool is_tagging = task == "tagging", is_qa = task == "qa", is_regression = task == "regression";
    const std::size_t columns = values.size() / rows.size(), width = is_tagging || is_qa ? columns / length : columns;
    std::ostringstream out;  // so that nothing is printed if a row is faulty
    std::vector<std::string> names;
    if (signature.at("kind") == "classifier" || is_tagging)
        names = signature.at("class_names").get<std::vector<std::string>>();
    const std::size_t expected = is_qa ? 2 : is_regression ? 1 : names.empty() && !is_tagging ? width : names.size();
    if (width != expected)
        throw Error("the symbol has " + std::to_string(width) + " outputs, but the signature describes " +
                    std::to_string(expected));
    if (is_tagging) {
        out << "tags\n";
    } else if (is_qa) {
        out << "start\tend\tscore\tno_answer\n";
    } else if (is_regression) {
        out << "value\n";
    } else if (!names.empty()) {
        out << (task == "multilabel" ? "labels" : "label");
        for (const std::string &name : names) out << "\tp(" << name << ")";
        out << '\n';
    }
    out.precision(9);
    std::size_t texts = 0, truncated = 0;
    for (std::size_t end, from = 0; from < rows.size(); from = end, ++texts) {
        end = end_of_text(rows, from);
        truncated += rows[from].value("truncated", json()) == true;
        std::string tags;
        Span span;
        std::vector<double> means(columns);
        for (std::size_t row = from; row < end; ++row) {
            const float *outputs = values.data() + row * columns;
            const std::size_t tokens = valid_length(rows[row], inputs);
            try {
                if (is_tagging) add_tags(tags, rows[row], names, outputs, tokens);
                if (is_qa) find_span(span, rows[row], outputs, tokens);
            } catch (const Error &error) {
                throw Error("row " + std::to_string(row + 1) + ": " + error.what());
            }
            for (std::size_t i = 0; i < columns; ++i) means[i] += outputs[i] / static_cast<double>(end - from);
        }
        const std::vector<float> outputs(means.begin(), means.end());
        if (is_tagging) {
            out << tags << '\n';
        } else if (is_qa) {
            print_span(out, span, settings.value("no_answer_threshold", json()));
        } else if (is_regression && settings.value("sigmoid", false)) {
            out << 1 / (1 + std::exp(-double{outputs[0]})) << '\n';
        } else {
            if (task == "multilabel" && !names.empty())
                out << labels_of(settings, names, outputs.data()) << '\t';
            else if (!names.empty())
                out << names[argmax(outputs.data(), width)] << '\t';
            for (std::size_t i = 0; i < columns; ++i) out << outputs[i] << (i + 1 < columns ? '\t' : '\n');
        }
    }
    if (!(std::cout << out.str()).flush()) throw Error("standard output can't be written");
    if (truncated) std::cerr << "warning: " << truncated << " of " << texts << " texts were truncated\n";
}

int main(int argc, char **argv) {
    if (argc < 2 || argc > 3) {
        std::cerr << "usage: predict MODEL [INPUTS]\n";
        return 2;
    }
    try {
        std::string prefix = argv[1];
        json manifest = read_manifest(prefix), signature = read_signature(prefix, manifest);
        std::string symbol = read_checked(prefix, "symbol.json", manifest);
        std::string params = read_checked(prefix, "0000.params", manifest);
        std::vector<Input> inputs = read_inputs(signature);
        std::ifstream file;
        if (argc == 3) {
            file.open(argv[2]);
            if (!file) throw Error(std::string(argv[2]) + ": can't be read");
        }
        std::vector<json> rows = read_rows(argc == 3 ? file : std::cin);
        std::size_t length = batch_length(rows, inputs, signature);
        for (Input &input : inputs) fill(input, rows, length);
        Library mxnet(std::getenv("LIBMXNET"));
        print_texts(signature, rows, inputs, forward(mxnet, symbol, params, inputs), length);
    } catch (const Error &error) {
        std::cerr << "error: " << error.what() << '\n';
        return 1;
    } catch (const json::exception &error) {
        std::cerr << "error: " << argv[1] << ": damaged signature or manifest: " << error.what() << '\n';
        return 1;
    }
}
