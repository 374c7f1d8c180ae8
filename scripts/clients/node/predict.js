// Predict with a bertsym bundle through MXNet's C predict API: node predict.js MODEL [INPUTS]
//
// INPUTS is the output of `bertsym tokenize`, one JSON object per line. The environment variable LIBMXNET names the
// library; koffi calls its functions.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import koffi from "koffi";

const longestAnswer = 30; // tokens

class DataError extends Error {}

function readFile(path) {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new DataError(`${path === 0 ? "standard input" : path}: ${error.message}`);
  }
}

function parse(text, where, hint = "") {
  let document;
  try {
    document = JSON.parse(text);
  } catch {
    document = null;
  }
  if (document === null || typeof document !== "object" || Array.isArray(document)) {
    throw new DataError(`${where}: not a JSON object${hint}`);
  }
  return document;
}

// Read a file whose size and SHA-256 must be those of the manifest.
function readChecked(prefix, name, manifest) {
  const entry = manifest.files?.[name];
  if (!entry) throw new DataError(`${prefix}-manifest.json: does not list ${name}`);
  const bytes = readFile(`${prefix}-${name}`);
  if (bytes.length !== entry.size || createHash("sha256").update(bytes).digest("hex") !== entry.sha256) {
    throw new DataError(`${prefix}-${name}: differs from the manifest in size or SHA-256`);
  }
  return bytes;
}

function readManifest(prefix) {
  const manifest = parse(readFile(`${prefix}-manifest.json`).toString(), `${prefix}-manifest.json`);
  if (manifest.format_version !== 2) {
    throw new DataError(`${prefix}: bundle format ${manifest.format_version}, this program reads format 2`);
  }
  return manifest;
}

// Read the signature; refuse an untrained head, whose output is noise, and unknown tasks.
function readSignature(prefix, manifest) {
  const signature = parse(readChecked(prefix, "signature.json", manifest).toString(), `${prefix}-signature.json`);
  if (signature.trained === false && signature.kind !== "encoder") {
    throw new DataError(`${prefix}: untrained head: train it first, for example with bertsym finetune`);
  }
  const tasks = ["classification", "multilabel", "regression", "tagging", "qa"];
  const task = signature.task ?? tasks[0];
  if (!tasks.includes(task)) throw new DataError(`${prefix}: task ${task}: not one of ${tasks.join(", ")}`);
  return signature;
}

function readRows(path) {
  const lines = readFile(path).toString().split("\n");
  if (lines.at(-1) === "") lines.pop();
  if (lines.length === 0) throw new DataError("no rows");
  const hint = ": the rows are the output of bertsym tokenize";
  return lines.map((line, index) => parse(line, `row ${index + 1}`, hint));
}

function checkNumbers(values, low, high, name) {
  if (!values.every((value) => Number.isInteger(value) && value >= low && value <= high)) {
    throw new DataError(`${name} must have integers from ${low} to ${high}`);
  }
}

// The length of a row's lists; a larger valid_length would make MXNet read out of bounds.
function checkRow(row, inputs) {
  let length = 0;
  for (const { name, isList } of inputs) {
    const value = row[name];
    if (value === undefined || Array.isArray(value) !== isList) {
      throw new DataError(`${name} is not a ${isList ? "list" : "number"}`);
    }
    if (!isList) continue;
    if (value.length === 0 || (length && value.length !== length)) {
      throw new DataError("lists of different lengths, or empty");
    }
    length = value.length;
    checkNumbers(value, 0, 2 ** 24, name);
  }
  for (const { name, isList } of inputs) if (!isList) checkNumbers([row[name]], 1, length, name);
  return length;
}

// The length of the batch: that of its longest row, or the fixed length of the symbol.
function batchLength(rows, inputs, signature) {
  const fixed = inputs.map(({ shape }) => shape[1]).find(Number.isInteger);
  const limit = fixed ?? signature.max_length ?? Infinity;
  const lengths = rows.map((row, index) => {
    try {
      const length = checkRow(row, inputs);
      if (length > limit) throw new DataError(`${length} tokens, the model takes ${limit}`);
      return length;
    } catch (error) {
      error.message = `row ${index + 1}: ${error.message}`;
      throw error;
    }
  });
  return fixed ?? lengths.reduce((longest, length) => Math.max(longest, length));
}

// The float32 elements of the input, with its lists padded.
function filled({ name, isList, padding }, rows, length) {
  if (!isList) return Float32Array.from(rows, (row) => row[name]);
  const values = new Float32Array(rows.length * length).fill(padding);
  rows.forEach((row, index) => values.set(row[name], index * length));
  return values;
}

function openMxnet(path) {
  if (!path) throw new DataError("LIBMXNET is not set");
  try {
    const library = koffi.load(path);
    const lastError = library.func("const char *MXGetLastError()");
    const checked = (prototype) => {
      const native = library.func(prototype);
      return (...values) => {
        if (native(...values) === 0) return;
        // MXNet's message has a stack trace after the first line.
        throw new DataError(`${native.info.name}: ${lastError().split("\n")[0]}`);
      };
    };
    return {
      create: checked(
        "int MXPredCreate(const char *symbol, const void *params, int size, int device, int device_id, " +
          "uint32_t inputs, const char **names, const uint32_t *starts, const uint32_t *shapes, _Out_ void **out)",
      ),
      setInput: checked("int MXPredSetInput(void *predictor, const char *name, const float *data, uint32_t size)"),
      forward: checked("int MXPredForward(void *predictor)"),
      outputShape: checked(
        "int MXPredGetOutputShape(void *predictor, uint32_t index, _Out_ void **shape, _Out_ uint32_t *dimensions)",
      ),
      output: checked("int MXPredGetOutput(void *predictor, uint32_t index, _Out_ float *data, uint32_t size)"),
      release: checked("int MXPredFree(void *predictor)"),
      waitAll: checked("int MXNDArrayWaitAll()"),
    };
  } catch (error) {
    throw new DataError(`${path}: ${error.message}`);
  }
}

// The elements of the first output.
function forward(symbol, params, inputs, rows, length) {
  if (params.length >= 2 ** 31) throw new DataError("MXPredCreate takes no more than 2 GiB of parameters");
  const mxnet = openMxnet(process.env.LIBMXNET);
  try {
    return outputOf(mxnet, symbol, params, inputs, rows, length);
  } finally {
    // MXNet frees memory in its own threads: an exit meanwhile would sometimes abort or hang.
    mxnet.waitAll();
  }
}

function outputOf(mxnet, symbol, params, inputs, rows, length) {
  const shapes = inputs.map(({ isList }) => (isList ? [rows.length, length] : [rows.length]));
  const starts = shapes.reduce((ends, shape) => [...ends, ends.at(-1) + shape.length], [0]);
  const handle = [null];
  mxnet.create(
    symbol.toString(),
    params,
    params.length,
    1,
    0,
    inputs.length,
    inputs.map(({ name }) => name),
    Uint32Array.from(starts),
    Uint32Array.from(shapes.flat()),
    handle,
  );
  const predictor = handle[0];
  for (const input of inputs) {
    const values = filled(input, rows, length);
    mxnet.setInput(predictor, input.name, values, values.length);
  }
  mxnet.forward(predictor);
  const shape = [null];
  const dimensions = [0];
  mxnet.outputShape(predictor, 0, shape, dimensions);
  const sizes = koffi.decode(shape[0], koffi.array("uint32_t", dimensions[0]));
  const values = new Float32Array(sizes.reduce((product, size) => product * size, 1));
  mxnet.output(predictor, 0, values, values.length);
  mxnet.release(predictor);
  return values;
}

// As C's %.9g.
function shown(value) {
  const [digits, exponent] = value.toExponential(8).split("e");
  if (exponent < -4 || exponent > 8) {
    return `${Number(digits)}e${exponent[0]}${exponent.slice(1).padStart(2, "0")}`;
  }
  return String(Number(value.toPrecision(9)));
}

function argmax(values) {
  return values.indexOf(values.reduce((largest, value) => Math.max(largest, value)));
}

// A list of the row that has an element for each token or word; decoding needs it.
function places(row, name) {
  if (!Array.isArray(row[name])) throw new DataError(`no ${name}: write the inputs with bertsym tokenize`);
  return row[name];
}

// The token of each word of a row, null for a word without one.
function wordTokens(row, tokens) {
  const words = places(row, "words");
  checkNumbers(
    words.filter((word) => word !== null),
    0,
    tokens - 1,
    "words",
  );
  return words;
}

// Start and end of each token in the context, null for other tokens.
function contextOffsets(row, tokens) {
  const offsets = places(row, "offsets");
  if (offsets.length !== tokens) throw new DataError(`${offsets.length} offsets for ${tokens} tokens`);
  const known = offsets.filter((offset) => offset !== null);
  if (known.length === 0) throw new DataError("no second text: a question needs a context");
  const isPair = (offset) => Array.isArray(offset) && offset.length === 2 && offset.every(Number.isInteger);
  if (!known.every(isPair)) throw new DataError("offsets must be pairs of integers, or null");
  return offsets;
}

// The logarithms of the probabilities of the context and of token 0, from every second logit.
function logProbabilities(logits, column, offsets) {
  const own = offsets.map((_, token) => logits[2 * token + column]);
  const known = own.filter((_, token) => token === 0 || offsets[token] !== null);
  const largest = known.reduce((most, value) => Math.max(most, value));
  const sum = known.reduce((total, value) => total + Math.exp(value - largest), 0);
  return own.map((value) => value - largest - Math.log(sum));
}

// The best span of the windows of a context, in characters, and the logarithms of its probability and of that of no
// answer. The probability of a span is that of its first token times that of its last; that of no answer is that of
// token 0, the lowest of the windows.
function bestSpan(windows) {
  const best = { score: -Infinity, noAnswer: Infinity };
  for (const { offsets, outputs } of windows) {
    const [starts, ends] = [0, 1].map((column) => logProbabilities(outputs, column, offsets));
    best.noAnswer = Math.min(best.noAnswer, starts[0] + ends[0]);
    offsets.forEach((offset, first) => {
      for (let last = first; last < first + longestAnswer && offset !== null && offsets[last]; last++) {
        const [score, start, end] = [starts[first] + ends[last], offset[0], offsets[last][1]];
        if (score > best.score && start < end) Object.assign(best, { start, end, score });
      }
    });
  }
  return best;
}

// The header, and the function that returns the cells of a text from its windows, by the task of the signature; without
// a task and classes only the numbers. `read` returns what a window needs beside its outputs, from its row and the number
// of its tokens.
function layout(signature, width) {
  const { task, class_names: names, task_settings: settings = {} } = signature;
  const hasNames = signature.kind === "classifier" || task === "tagging";
  const expected = { qa: 2, regression: 1 }[task] ?? (hasNames ? names.length : width);
  if (width !== expected) {
    throw new DataError(`the symbol has ${width} outputs, but the signature describes ${expected}`);
  }
  const label = (values) => names[argmax(values)];
  if (task === "tagging") {
    const read = (row, tokens) => ({ words: wordTokens(row, tokens) });
    const tag = (outputs, token) =>
      token === null ? "_" : label(outputs.subarray(token * width, (token + 1) * width));
    const tags = (windows) => windows.flatMap(({ words, outputs }) => words.map((token) => tag(outputs, token)));
    return { header: ["tags"], read, cells: (windows) => [tags(windows).join(" ")] };
  }
  if (task === "qa") {
    const threshold = settings.no_answer_threshold ?? Infinity;
    const read = (row, tokens) => ({ offsets: contextOffsets(row, tokens) });
    const cells = (windows) => {
      const { start, end, score, noAnswer } = bestSpan(windows);
      const place = noAnswer - score > threshold ? ["", ""] : [start, end];
      return [...place, shown(Math.exp(score)), shown(Math.exp(noAnswer))];
    };
    return { header: ["start", "end", "score", "no_answer"], read, cells };
  }
  if (task === "regression") {
    const value = (output) => (settings.sigmoid ? 1 / (1 + Math.exp(-output)) : output);
    return { header: ["value"], cells: (windows) => [shown(value(mean(windows)[0]))] };
  }
  if (!hasNames) return { header: null, cells: (windows) => Array.from(mean(windows), shown) };
  const isReached = (value, index) => value >= (settings.thresholds?.[index] ?? 0.5);
  const labels = (values) =>
    names.filter((_, index) => isReached(values[index], index)).join(settings.label_delimiter ?? ",");
  const [title, chosen] = task === "multilabel" ? ["labels", labels] : ["label", label];
  return {
    header: [title, ...names.map((name) => `p(${name})`)],
    cells: (windows) => {
      const values = mean(windows);
      return [chosen(values), ...Array.from(values, shown)];
    },
  };
}

function mean(windows) {
  const sum = (index) => windows.reduce((total, { outputs }) => total + outputs[index], 0);
  return windows[0].outputs.map((_, index) => sum(index) / windows.length);
}

function printTexts(signature, values, rows, inputs, length) {
  const columns = values.length / rows.length;
  const perToken = ["tagging", "qa"].includes(signature.task);
  const { header, read, cells } = layout(signature, perToken ? columns / length : columns);
  const validLength = inputs.find(({ isList }) => !isList)?.name;
  const texts = [];
  rows.forEach((row, index) => {
    try {
      const tokens = row[validLength] ?? row[inputs[0].name].length;
      const window = { outputs: values.subarray(index * columns, (index + 1) * columns), ...read?.(row, tokens) };
      // The windows of a text have the same number.
      if (index > 0 && row.example !== undefined && row.example === rows[index - 1].example) texts.at(-1).push(window);
      else texts.push([window]);
    } catch (error) {
      error.message = `row ${index + 1}: ${error.message}`;
      throw error;
    }
  });
  const lines = [...(header ? [header] : []), ...texts.map(cells)];
  process.stdout.write(lines.map((line) => `${line.join("\t")}\n`).join(""));
  const truncated = rows.filter((row) => row.truncated).length;
  if (truncated > 0) console.error(`warning: ${truncated} of ${texts.length} texts were truncated`);
}

function main([prefix, file, ...more]) {
  if (prefix === undefined || more.length > 0) {
    console.error("usage: predict.js MODEL [INPUTS]");
    return 2;
  }
  try {
    const manifest = readManifest(prefix);
    const signature = readSignature(prefix, manifest);
    const symbol = readChecked(prefix, "symbol.json", manifest);
    const params = readChecked(prefix, "0000.params", manifest);
    // The first input has the token ids. A symbol that is not a BERT has no pad_id.
    const inputs = signature.inputs.map(({ name, shape }, index) => ({
      name,
      shape,
      isList: shape.length === 2,
      padding: index === 0 ? (signature.pad_id ?? 0) : 0,
    }));
    const rows = readRows(file ?? 0);
    const length = batchLength(rows, inputs, signature);
    printTexts(signature, forward(symbol, params, inputs, rows, length), rows, inputs, length);
    return 0;
  } catch (error) {
    if (!(error instanceof DataError)) throw error;
    console.error(`error: ${error.message}`);
    return 1;
  }
}

process.exitCode = main(process.argv.slice(2));
