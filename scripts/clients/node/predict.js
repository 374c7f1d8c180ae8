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

// The best span of the second text: its tokens follow the first separators of the row. A score is the logit of the
// first token plus that of the last; the score of no answer is that of token 0.
function bestSpan(separator, ids, logits) {
  let from = 0;
  let to = logits.length / 2;
  while (from < to && ids[from] !== separator) from++;
  while (from < to && ids[from] === separator) from++;
  while (to > from && ids[to - 1] === separator) to--;
  if (from === to) throw new DataError("no second text: a question needs a context");
  const best = { score: -Infinity, noAnswer: logits[0] + logits[1] };
  for (let first = from; first < to; first++) {
    for (let last = first; last < Math.min(to, first + longestAnswer); last++) {
      const score = logits[2 * first] + logits[2 * last + 1];
      if (score > best.score) Object.assign(best, { first, last, score });
    }
  }
  return best;
}

// The header, and the function that returns the cells of a row from its outputs, its token ids and the number of its
// tokens, by the task of the signature; without a task and classes only the numbers.
function layout(signature, width) {
  const { task, class_names: names, task_settings: settings = {} } = signature;
  const hasNames = signature.kind === "classifier" || task === "tagging";
  const expected = { qa: 2, regression: 1 }[task] ?? (hasNames ? names.length : width);
  if (width !== expected) {
    throw new DataError(`the symbol has ${width} outputs, but the signature describes ${expected}`);
  }
  const label = (values) => names[argmax(values)];
  if (task === "tagging") {
    const tags = (values, tokens) =>
      Array.from({ length: tokens }, (_, i) => label(values.subarray(i * width, (i + 1) * width)));
    return { header: ["tags"], cells: (values, _, tokens) => [tags(values, tokens).join(" ")] };
  }
  if (task === "qa") {
    const separator = signature.special_ids?.sep;
    if (separator === undefined) throw new DataError("the signature has no special_ids.sep");
    const threshold = settings.no_answer_threshold ?? Infinity;
    const cells = (values, ids, tokens) => {
      const { first, last, score, noAnswer } = bestSpan(separator, ids, values.subarray(0, 2 * tokens));
      const place = noAnswer - score > threshold ? ["", ""] : [first, last];
      return [...place, shown(score), shown(noAnswer)];
    };
    return { header: ["start", "end", "score", "no_answer"], cells };
  }
  if (task === "regression") {
    const value = (output) => (settings.sigmoid ? 1 / (1 + Math.exp(-output)) : output);
    return { header: ["value"], cells: ([output]) => [shown(value(output))] };
  }
  if (!hasNames) return { header: null, cells: (values) => Array.from(values, shown) };
  const isReached = (value, index) => value >= (settings.thresholds?.[index] ?? 0.5);
  const labels = (values) =>
    names.filter((_, index) => isReached(values[index], index)).join(settings.label_delimiter ?? ",");
  const [title, chosen] = task === "multilabel" ? ["labels", labels] : ["label", label];
  return {
    header: [title, ...names.map((name) => `p(${name})`)],
    cells: (values) => [chosen(values), ...Array.from(values, shown)],
  };
}

function printRows(signature, values, rows, inputs, length) {
  const columns = values.length / rows.length;
  const { header, cells } = layout(signature, ["tagging", "qa"].includes(signature.task) ? columns / length : columns);
  const lines = header ? [header] : [];
  const ids = inputs[0].name;
  const validLength = inputs.find(({ isList }) => !isList)?.name;
  rows.forEach((row, index) => {
    const outputs = values.subarray(index * columns, (index + 1) * columns);
    try {
      lines.push(cells(outputs, row[ids], row[validLength] ?? row[ids].length));
    } catch (error) {
      error.message = `row ${index + 1}: ${error.message}`;
      throw error;
    }
  });
  process.stdout.write(lines.map((line) => `${line.join("\t")}\n`).join(""));
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
    printRows(signature, forward(symbol, params, inputs, rows, length), rows, inputs, length);
    return 0;
  } catch (error) {
    if (!(error instanceof DataError)) throw error;
    console.error(`error: ${error.message}`);
    return 1;
  }
}

process.exitCode = main(process.argv.slice(2));
