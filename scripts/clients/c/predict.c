/* Predict with a bertsym bundle through MXNet's C predict API: predict MODEL [INPUTS]
 *
 * INPUTS is the output of `bertsym tokenize`, one JSON object per line. The environment variable LIBMXNET names the
 * library, which is opened at run time, so that one program works with every MXNet from 1.4 on.
 */
#define _POSIX_C_SOURCE 200809L
/* The header of MXNet >= 1.6 needs these three includes before it. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <mxnet/c_predict_api.h>

#include <dlfcn.h>
#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <openssl/evp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_INPUTS 8
#define LONGEST_ANSWER 30 /* in tokens */

/* The functions of the library, with the types of c_predict_api.h. */
static struct {
    const char *(*last_error)(void);
    int (*create)(const char *symbol, const void *params, int size, int device, int device_id, mx_uint inputs,
                  const char **names, const mx_uint *shape_starts, const mx_uint *shapes, PredictorHandle *out);
    int (*set_input)(PredictorHandle, const char *name, const mx_float *data, mx_uint size);
    int (*forward)(PredictorHandle);
    int (*output_shape)(PredictorHandle, mx_uint index, mx_uint **shape, mx_uint *dimensions);
    int (*output)(PredictorHandle, mx_uint index, mx_float *data, mx_uint size);
    int (*release)(PredictorHandle);
    int (*wait_all)(void); /* in c_api.h */
} mxnet;

typedef struct {
    char *data; /* ends in a NUL that size does not count */
    size_t size;
} Bytes;

typedef struct {
    const char *name;
    bool is_list; /* (batch, length), or (batch) */
    float padding;
    float *data;
} Input;

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("error: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static void *allocate(size_t count, size_t size) {
    void *memory = calloc(count, size);
    if (!memory) fail("out of memory");
    return memory;
}

static char *joined(const char *prefix, const char *name) {
    size_t size = strlen(prefix) + strlen(name) + 2;
    char *path = allocate(size, 1);
    snprintf(path, size, "%s-%s", prefix, name);
    return path;
}

/* MXNet's message has a stack trace after the first line. */
static void check(int code, const char *what) {
    if (code != 0) {
        const char *message = mxnet.last_error();
        mxnet.wait_all();
        fail("%s: %.*s", what, (int)strcspn(message, "\n"), message);
    }
}

static void *function(void *library, const char *name) {
    void *found = dlsym(library, name);
    if (!found) fail("%s", dlerror());
    return found;
}

static void open_mxnet(void) {
    const char *path = getenv("LIBMXNET");
    if (!path) fail("LIBMXNET is not set");
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) fail("%s", dlerror());
    /* Through void **, since C has no conversion from void * to a function. */
    *(void **)&mxnet.last_error = function(library, "MXGetLastError");
    *(void **)&mxnet.create = function(library, "MXPredCreate");
    *(void **)&mxnet.set_input = function(library, "MXPredSetInput");
    *(void **)&mxnet.forward = function(library, "MXPredForward");
    *(void **)&mxnet.output_shape = function(library, "MXPredGetOutputShape");
    *(void **)&mxnet.output = function(library, "MXPredGetOutput");
    *(void **)&mxnet.release = function(library, "MXPredFree");
    *(void **)&mxnet.wait_all = function(library, "MXNDArrayWaitAll");
}

static Bytes read_file(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) fail("%s: %s", path, strerror(errno));
    Bytes bytes = {NULL, 0};
    for (size_t room = 0, count = 1; count > 0; bytes.size += count) {
        if (room - bytes.size < 2) {
            room = room ? 2 * room : 1 << 16;
            bytes.data = realloc(bytes.data, room);
            if (!bytes.data) fail("out of memory");
        }
        count = fread(bytes.data + bytes.size, 1, room - bytes.size - 1, file);
    }
    if (ferror(file)) fail("%s: %s", path, strerror(errno));
    fclose(file);
    bytes.data[bytes.size] = '\0';
    return bytes;
}

static json_t *read_json(const char *prefix, const char *name) {
    char *path = joined(prefix, name);
    Bytes text = read_file(path);
    json_t *document = json_loadb(text.data, text.size, 0, NULL);
    if (!json_is_object(document)) fail("%s: not a JSON object", path);
    free(text.data);
    free(path);
    return document;
}

/* Read a file whose size and SHA-256 must be those of the manifest. */
static Bytes read_checked(const char *prefix, const char *name, json_t *manifest) {
    char *path = joined(prefix, name), hexadecimal[2 * EVP_MAX_MD_SIZE + 1];
    const char *expected;
    json_int_t size;
    if (json_unpack(manifest, "{s:{s:{s:s, s:I}}}", "files", name, "sha256", &expected, "size", &size) != 0)
        fail("%s-manifest.json: does not have size and SHA-256 of %s", prefix, name);
    Bytes bytes = read_file(path);
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int length;
    if (!EVP_Digest(bytes.data, bytes.size, digest, &length, EVP_sha256(), NULL)) fail("SHA-256 is not available");
    for (unsigned int i = 0; i < length; i++) snprintf(hexadecimal + 2 * i, 3, "%02x", digest[i]);
    if ((json_int_t)bytes.size != size || strcmp(hexadecimal, expected) != 0)
        fail("%s: differs from the manifest in size or SHA-256", path);
    free(path);
    return bytes;
}

static json_t *read_manifest(const char *prefix) {
    json_t *manifest = read_json(prefix, "manifest.json");
    json_int_t version = json_integer_value(json_object_get(manifest, "format_version"));
    if (version != 2) fail("%s: bundle format %lld, this program reads format 2", prefix, (long long)version);
    return manifest;
}

/* The task of a head; an empty string for none. */
static const char *task_of(json_t *signature) {
    const char *task = json_string_value(json_object_get(signature, "task"));
    return task ? task : "";
}

/* Read the signature; refuse an untrained head, whose output is noise, and unknown tasks. */
static json_t *read_signature(const char *prefix, json_t *manifest) {
    static const char *tasks[] = {"", "classification", "multilabel", "regression", "tagging", "qa"};
    Bytes text = read_checked(prefix, "signature.json", manifest);
    json_t *signature = json_loadb(text.data, text.size, 0, NULL);
    if (!json_is_object(signature)) fail("%s-signature.json: not a JSON object", prefix);
    const char *kind = json_string_value(json_object_get(signature, "kind"));
    if (!kind) fail("%s-signature.json: has no kind", prefix);
    if (json_is_false(json_object_get(signature, "trained")) && strcmp(kind, "encoder") != 0)
        fail("%s: untrained head: train it first, for example with bertsym finetune", prefix);
    size_t known = 0;
    while (known < sizeof tasks / sizeof *tasks && strcmp(task_of(signature), tasks[known]) != 0) known++;
    if (known == sizeof tasks / sizeof *tasks)
        fail("%s: task %s: not one of classification, multilabel, regression, tagging, qa", prefix, task_of(signature));
    free(text.data);
    return signature;
}

static json_t *read_rows(const char *path) {
    FILE *file = path ? fopen(path, "r") : stdin;
    if (!file) fail("%s: %s", path, strerror(errno));
    json_t *rows = json_array();
    char *line = NULL;
    size_t room = 0;
    ssize_t size;
    while ((size = getline(&line, &room, file)) > 0) {
        json_t *row = json_loadb(line, (size_t)size, 0, NULL);
        if (!json_is_object(row))
            fail("row %zu: not a JSON object: the rows are the output of bertsym tokenize", json_array_size(rows) + 1);
        json_array_append_new(rows, row);
    }
    if (ferror(file)) fail("%s: %s", path ? path : "standard input", strerror(errno));
    if (json_array_size(rows) == 0) fail("no rows");
    free(line);
    if (path) fclose(file);
    return rows;
}

/* Check an integer; MXNet computes with float32. */
static json_int_t check_integer(json_t *value, json_int_t low, json_int_t high, const char *name, size_t row) {
    if (!json_is_integer(value) || json_integer_value(value) < low || json_integer_value(value) > high)
        fail("row %zu: %s must have integers from %lld to %lld", row + 1, name, (long long)low,
             (long long)high);
    return json_integer_value(value);
}

/* The length of a row's lists; a larger valid_length would make MXNet read out of bounds. */
static size_t check_row(json_t *row, size_t number, const Input *inputs, size_t count) {
    size_t length = 0;
    for (size_t i = 0; i < count; i++) {
        json_t *value = json_object_get(row, inputs[i].name);
        if (!value || json_is_array(value) != inputs[i].is_list)
            fail("row %zu: %s is not a %s", number + 1, inputs[i].name, inputs[i].is_list ? "list" : "number");
        if (inputs[i].is_list) {
            size_t size = json_array_size(value), position;
            json_t *item;
            if (size == 0 || (length && size != length))
                fail("row %zu: lists of different lengths, or empty", number + 1);
            length = size;
            json_array_foreach(value, position, item) check_integer(item, 0, 1 << 24, inputs[i].name, number);
        }
    }
    for (size_t i = 0; i < count; i++)
        if (!inputs[i].is_list)
            check_integer(json_object_get(row, inputs[i].name), 1, (json_int_t)length, inputs[i].name, number);
    return length;
}

static size_t read_inputs(json_t *signature, Input *inputs, size_t *fixed_length) {
    json_t *tensors = json_object_get(signature, "inputs"), *tensor;
    size_t index;
    if (json_array_size(tensors) == 0 || json_array_size(tensors) > MAX_INPUTS) fail("the signature has no inputs");
    json_array_foreach(tensors, index, tensor) {
        json_t *shape = json_object_get(tensor, "shape"), *length = json_array_get(shape, 1);
        const char *name = json_string_value(json_object_get(tensor, "name"));
        if (!name || json_array_size(shape) < 1 || json_array_size(shape) > 2)
            fail("the signature has an input that is neither (batch, length) nor (batch)");
        /* The first input has the token ids. A symbol that is not a BERT has no pad_id. */
        json_t *pad_id = index == 0 ? json_object_get(signature, "pad_id") : NULL;
        inputs[index] = (Input){name, json_array_size(shape) == 2, (float)json_integer_value(pad_id), NULL};
        if (json_is_integer(length)) *fixed_length = (size_t)json_integer_value(length);
    }
    return json_array_size(tensors);
}

/* Fill float arrays (rows, length), padded, and (rows). */
static void fill(Input *input, json_t *rows, size_t length) {
    size_t number, position;
    json_t *row;
    input->data = allocate(json_array_size(rows) * (input->is_list ? length : 1), sizeof(float));
    json_array_foreach(rows, number, row) {
        json_t *value = json_object_get(row, input->name);
        if (input->is_list) {
            for (position = 0; position < length; position++) {
                json_t *item = json_array_get(value, position);
                input->data[number * length + position] = item ? (float)json_integer_value(item) : input->padding;
            }
        } else {
            input->data[number] = (float)json_integer_value(value);
        }
    }
}

static PredictorHandle create(Bytes symbol, Bytes params, const Input *inputs, size_t count, mx_uint rows,
                              mx_uint length) {
    const char *names[MAX_INPUTS];
    mx_uint starts[MAX_INPUTS + 1] = {0}, shapes[2 * MAX_INPUTS], end = 0;
    for (size_t i = 0; i < count; i++) {
        names[i] = inputs[i].name;
        shapes[end++] = rows;
        if (inputs[i].is_list) shapes[end++] = length;
        starts[i + 1] = end;
    }
    PredictorHandle predictor;
    if (params.size > INT_MAX) fail("MXPredCreate takes no more than 2 GiB of parameters");
    check(mxnet.create(symbol.data, params.data, (int)params.size, 1, 0, (mx_uint)count, names, starts, shapes,
                       &predictor),
          "MXPredCreate");
    return predictor;
}

/* The number of tokens of a row that are not padding. */
static size_t valid_length(json_t *row, const Input *inputs, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (!inputs[i].is_list) return (size_t)json_integer_value(json_object_get(row, inputs[i].name));
    return json_array_size(json_object_get(row, inputs[0].name));
}

static const char *class_name(json_t *signature, size_t index) {
    return json_string_value(json_array_get(json_object_get(signature, "class_names"), index));
}

static json_t *setting(json_t *signature, const char *name) {
    return json_object_get(json_object_get(signature, "task_settings"), name);
}

static size_t argmax(const float *values, size_t count) {
    size_t best = 0;
    for (size_t i = 1; i < count; i++)
        if (values[i] > values[best]) best = i;
    return best;
}

static void print_label(json_t *signature, const float *probabilities, size_t classes) {
    fputs(class_name(signature, argmax(probabilities, classes)), stdout);
}

/* Print the labels whose probability reaches their threshold. */
static void print_labels(json_t *signature, const float *probabilities, size_t classes) {
    json_t *thresholds = setting(signature, "thresholds");
    const char *delimiter = json_string_value(setting(signature, "label_delimiter"));
    size_t printed = 0;
    for (size_t i = 0; i < classes; i++) {
        json_t *threshold = json_array_get(thresholds, i);
        if (probabilities[i] >= (threshold ? json_number_value(threshold) : 0.5))
            printf("%s%s", printed++ ? (delimiter ? delimiter : ",") : "", class_name(signature, i));
    }
}

/* Check a list of `tokenize` that has an element for each token or word; decoding needs it. */
static json_t *places(json_t *row, const char *name, size_t number) {
    json_t *list = json_object_get(row, name);
    if (!json_is_array(list)) fail("row %zu: no %s: write the inputs with bertsym tokenize", number + 1, name);
    return list;
}

/* Check the index of the token of each word, or null for a word without one. */
static void check_words(json_t *row, size_t number, size_t tokens) {
    json_t *words = places(row, "words", number), *word;
    size_t i;
    json_array_foreach(words, i, word) if (!json_is_null(word))
        check_integer(word, 0, (json_int_t)tokens - 1, "words", number);
}

/* Check start and end of each token in the context, or null for other tokens. */
static void check_offsets(json_t *row, size_t number, size_t tokens) {
    json_t *offsets = places(row, "offsets", number), *offset;
    json_int_t start, end;
    size_t i, found = 0;
    if (json_array_size(offsets) != tokens)
        fail("row %zu: %zu offsets for %zu tokens", number + 1, json_array_size(offsets), tokens);
    json_array_foreach(offsets, i, offset) {
        if (json_is_null(offset)) continue;
        if (json_unpack(offset, "[I,I!]", &start, &end) != 0)
            fail("row %zu: offsets must be pairs of integers, or null", number + 1);
        found++;
    }
    if (found == 0) fail("row %zu: no second text: a question needs a context", number + 1);
}

/* Print the tag of each word, `_` for a word without a token. */
static void print_tags(json_t *signature, json_t *rows, size_t from, size_t to, const float *probabilities,
                       size_t columns, size_t classes) {
    size_t printed = 0, i;
    json_t *word;
    for (size_t number = from; number < to; number++)
        json_array_foreach(json_object_get(json_array_get(rows, number), "words"), i, word) {
            const float *token = probabilities + number * columns + classes * (size_t)json_integer_value(word);
            if (printed++) putchar(' ');
            fputs(json_is_null(word) ? "_" : class_name(signature, argmax(token, classes)), stdout);
        }
    putchar('\n');
}

static bool is_context(json_t *offsets, size_t token) {
    return token < json_array_size(offsets) && !json_is_null(json_array_get(offsets, token));
}

/* The logarithm of what the exponentials of a logit are divided by: their sum over the context and token 0. */
static double log_sum(const float *logits, json_t *offsets) {
    double largest = logits[0], sum = 0;
    for (size_t i = 0; i < json_array_size(offsets); i++)
        if (is_context(offsets, i)) largest = fmax(largest, logits[2 * i]);
    for (size_t i = 0; i < json_array_size(offsets); i++)
        if (i == 0 || is_context(offsets, i)) sum += exp(logits[2 * i] - largest);
    return largest + log(sum);
}

/* Print the best span of the windows [from, to) of a context, in characters. The probability of a span is that of its
 * first token times that of its last; that of no answer is that of token 0, the lowest of the windows. */
static void print_span(json_t *signature, json_t *rows, size_t from, size_t to, const float *outputs, size_t columns) {
    double best = -INFINITY, no_answer = INFINITY; /* logarithms */
    json_int_t first = 0, last = 0, start, end, unused;
    for (size_t number = from; number < to; number++) {
        json_t *offsets = json_object_get(json_array_get(rows, number), "offsets");
        const float *logits = outputs + number * columns;
        double sum = log_sum(logits, offsets) + log_sum(logits + 1, offsets);
        no_answer = fmin(no_answer, (double)logits[0] + logits[1] - sum);
        for (size_t i = 0; i < json_array_size(offsets); i++)
            for (size_t j = i; is_context(offsets, i) && is_context(offsets, j) && j < i + LONGEST_ANSWER; j++) {
                double score = (double)logits[2 * i] + logits[2 * j + 1] - sum;
                json_unpack(json_array_get(offsets, i), "[I,I]", &start, &unused);
                json_unpack(json_array_get(offsets, j), "[I,I]", &unused, &end);
                if (score > best && start < end) best = score, first = start, last = end;
            }
    }
    json_t *threshold = setting(signature, "no_answer_threshold");
    if (json_is_number(threshold) && no_answer - best > json_number_value(threshold))
        putchar('\t');
    else
        printf("%lld\t%lld", (long long)first, (long long)last);
    printf("\t%.9g\t%.9g\n", exp(best), exp(no_answer));
}

/* The row after the last window of the text whose first window is a row: windows have the same number as `example`. */
static size_t end_of_text(json_t *rows, size_t row) {
    json_t *example = json_object_get(json_array_get(rows, row), "example");
    size_t end = row + 1;
    while (example && json_equal(example, json_object_get(json_array_get(rows, end), "example"))) end++;
    return end;
}

/* Replace the outputs of the first of the windows [from, to) of a text with their mean. */
static void average(float *outputs, size_t columns, size_t from, size_t to) {
    for (size_t i = 0; i < columns; i++) {
        double sum = 0;
        for (size_t row = from; row < to; row++) sum += outputs[row * columns + i];
        outputs[from * columns + i] = (float)(sum / (double)(to - from));
    }
}

static void print_numbers(const float *values, size_t count) {
    for (size_t i = 0; i < count; i++) printf("%.9g%c", values[i], i + 1 < count ? '\t' : '\n');
}

/* Print a line per text, by the task of the signature; without a task and classes only the numbers. */
static void print_texts(json_t *signature, json_t *rows, const Input *inputs, size_t count, float *values,
                        size_t columns, size_t length) {
    const char *kind = json_string_value(json_object_get(signature, "kind")), *task = task_of(signature);
    bool has_names = strcmp(kind, "classifier") == 0, is_multilabel = strcmp(task, "multilabel") == 0;
    bool is_tagging = strcmp(task, "tagging") == 0, is_qa = strcmp(task, "qa") == 0;
    bool is_regression = strcmp(task, "regression") == 0;
    json_t *names = json_object_get(signature, "class_names"), *name, *row;
    size_t width = is_tagging || is_qa ? columns / length : columns, number, i, texts = 0, truncated = 0;
    size_t expected = is_qa ? 2 : is_regression ? 1 : has_names || is_tagging ? json_array_size(names) : width;
    if (width != expected) fail("the symbol has %zu outputs, but the signature describes %zu", width, expected);
    /* A faulty row is reported before anything is printed. */
    json_array_foreach(rows, number, row) {
        if (is_qa) check_offsets(row, number, valid_length(row, inputs, count));
        if (is_tagging) check_words(row, number, valid_length(row, inputs, count));
    }
    if (is_tagging) {
        puts("tags");
    } else if (is_qa) {
        puts("start\tend\tscore\tno_answer");
    } else if (is_regression) {
        puts("value");
    } else if (has_names) {
        fputs(is_multilabel ? "labels" : "label", stdout);
        json_array_foreach(names, i, name) printf("\tp(%s)", json_string_value(name));
        putchar('\n');
    }
    for (size_t end, from = 0; from < json_array_size(rows); from = end, texts++) {
        end = end_of_text(rows, from);
        truncated += json_is_true(json_object_get(json_array_get(rows, from), "truncated"));
        float *outputs = values + from * columns;
        if (is_tagging) {
            print_tags(signature, rows, from, end, values, columns, width);
            continue;
        }
        if (is_qa) {
            print_span(signature, rows, from, end, values, columns);
            continue;
        }
        average(values, columns, from, end);
        if (is_regression && json_is_true(setting(signature, "sigmoid"))) {
            printf("%.9g\n", 1 / (1 + exp(-(double)outputs[0])));
        } else {
            if (has_names) {
                (is_multilabel ? print_labels : print_label)(signature, outputs, width);
                putchar('\t');
            }
            print_numbers(outputs, columns);
        }
    }
    if (truncated) fprintf(stderr, "warning: %zu of %zu texts were truncated\n", truncated, texts);
}

int main(int argc, char **argv) {
    if (argc < 2 || argc > 3) {
        fputs("usage: predict MODEL [INPUTS]\n", stderr);
        return 2;
    }
    const char *prefix = argv[1];
    json_t *manifest = read_manifest(prefix), *signature = read_signature(prefix, manifest);
    Bytes symbol = read_checked(prefix, "symbol.json", manifest);
    Bytes params = read_checked(prefix, "0000.params", manifest);

    Input inputs[MAX_INPUTS];
    size_t fixed_length = 0, length = 0, number;
    size_t count = read_inputs(signature, inputs, &fixed_length);
    json_t *rows = read_rows(argv[2]), *row, *max_length = json_object_get(signature, "max_length");
    size_t limit = json_is_integer(max_length) ? (size_t)json_integer_value(max_length) : SIZE_MAX;
    if (fixed_length) limit = fixed_length;
    json_array_foreach(rows, number, row) {
        size_t size = check_row(row, number, inputs, count);
        if (size > limit) fail("row %zu: %zu tokens, the model takes %zu", number + 1, size, limit);
        if (size > length) length = size;
    }
    if (fixed_length) length = fixed_length;

    open_mxnet();
    mx_uint batch = (mx_uint)json_array_size(rows);
    PredictorHandle predictor = create(symbol, params, inputs, count, batch, (mx_uint)length);
    for (size_t i = 0; i < count; i++) {
        fill(&inputs[i], rows, length);
        mx_uint size = inputs[i].is_list ? batch * (mx_uint)length : batch;
        check(mxnet.set_input(predictor, inputs[i].name, inputs[i].data, size), "MXPredSetInput");
    }
    check(mxnet.forward(predictor), "MXPredForward");

    mx_uint *shape, dimensions, size = 1;
    check(mxnet.output_shape(predictor, 0, &shape, &dimensions), "MXPredGetOutputShape");
    for (mx_uint i = 0; i < dimensions; i++) size *= shape[i];
    float *values = allocate(size, sizeof(float));
    check(mxnet.output(predictor, 0, values, size), "MXPredGetOutput");
    print_texts(signature, rows, inputs, count, values, size / batch, length);
    check(mxnet.release(predictor), "MXPredFree");
    /* MXNet frees memory in its own threads: an exit meanwhile would sometimes abort or hang. */
    check(mxnet.wait_all(), "MXNDArrayWaitAll");
    if (fflush(stdout) != 0) fail("standard output: %s", strerror(errno));
    return 0;
}
