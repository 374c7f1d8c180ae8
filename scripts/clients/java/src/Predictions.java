import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;

/** Predictions from the outputs of a bundle's symbol, by the task of its signature. */
final class Predictions {
    private static final int LONGEST_ANSWER = 30; // tokens

    private final JsonObject settings;
    private final String task; // empty without one
    private final List<String> names = new ArrayList<>(); // of the classes

    Predictions(Bundle bundle) {
        JsonObject signature = bundle.signature();
        JsonElement known = signature.get("task");
        task = known == null || known.isJsonNull() ? "" : known.getAsString();
        settings = signature.has("task_settings") ? signature.getAsJsonObject("task_settings") : new JsonObject();
        // Only the columns of a classifier have names.
        if (task.equals("tagging") || signature.get("kind").getAsString().equals("classifier")) {
            signature.getAsJsonArray("class_names").forEach(name -> names.add(name.getAsString()));
        }
    }

    /** A window of a text: the row of {@code bertsym tokenize}, counted from 1, its tokens and its outputs. */
    private record Window(JsonObject row, int number, int tokens, float[] outputs) {
        /** A list of the row that has an element for each token or word; decoding needs it. */
        JsonArray places(String name) throws IOException {
            JsonElement places = row.get(name);
            if (places == null || !places.isJsonArray()) {
                throw fault("no " + name + ": write the inputs with bertsym tokenize");
            }
            return places.getAsJsonArray();
        }

        IOException fault(String what) {
            return new IOException("row " + number + ": " + what);
        }
    }

    /** Prints a header and a line per text; without a task and classes only the numbers. */
    void print(float[] outputs, List<Bundle.Batch> inputs, List<Bundle.Row> rows) throws IOException {
        boolean perToken = task.equals("tagging") || task.equals("qa");
        int columns = outputs.length / rows.size();
        int width = perToken ? columns / inputs.get(0).shape()[1] : columns;
        int expected = task.equals("qa")
                ? 2
                : task.equals("regression") ? 1 : names.isEmpty() && !perToken ? width : names.size();
        if (width != expected) {
            throw new IOException("the symbol has " + width + " outputs, but the signature describes " + expected);
        }
        List<String> lines = new ArrayList<>();
        if (!header().isEmpty()) {
            lines.add(String.join("\t", header()));
        }
        int texts = 0;
        int truncated = 0;
        List<Window> windows = new ArrayList<>();
        for (int i = 0; i < rows.size(); i++) {
            JsonObject row = rows.get(i).object();
            float[] values = Arrays.copyOfRange(outputs, i * columns, (i + 1) * columns);
            windows.add(new Window(row, i + 1, tokens(inputs, rows, i), values));
            // The windows of a text have the same number.
            JsonElement example = row.get("example");
            if (example == null || i + 1 == rows.size() || !example.equals(rows.get(i + 1).object().get("example"))) {
                lines.add(String.join("\t", cells(windows)));
                texts++;
                truncated += row.has("truncated") && row.get("truncated").getAsBoolean() ? 1 : 0;
                windows.clear();
            }
        }
        lines.forEach(System.out::println);
        if (truncated > 0) {
            System.err.println("warning: " + truncated + " of " + texts + " texts were truncated");
        }
    }

    /** The number of tokens of a row that are not padding: the only input with one number per row, if there is one. */
    private static int tokens(List<Bundle.Batch> inputs, List<Bundle.Row> rows, int row) {
        return inputs.stream()
                .filter(input -> input.shape().length == 1)
                .findFirst()
                .map(input -> (int) input.values()[row])
                .orElse(rows.get(row).numbers()[0].length);
    }

    private List<String> header() {
        switch (task) {
            case "tagging":
                return List.of("tags");
            case "qa":
                return List.of("start", "end", "score", "no_answer");
            case "regression":
                return List.of("value");
            default:
                List<String> header = new ArrayList<>();
                if (!names.isEmpty()) {
                    header.add(task.equals("multilabel") ? "labels" : "label");
                }
                names.forEach(name -> header.add("p(" + name + ")"));
                return header;
        }
    }

    private List<String> cells(List<Window> windows) throws IOException {
        switch (task) {
            case "tagging":
                return List.of(tags(windows));
            case "qa":
                return span(windows);
            case "regression":
                boolean sigmoid = settings.has("sigmoid") && settings.get("sigmoid").getAsBoolean();
                float value = mean(windows)[0];
                return List.of(number(sigmoid ? 1 / (1 + Math.exp(-value)) : value));
            default:
                float[] outputs = mean(windows);
                List<String> cells = new ArrayList<>();
                if (!names.isEmpty()) {
                    cells.add(task.equals("multilabel") ? labels(outputs) : names.get(argmax(outputs, 0)));
                }
                for (float output : outputs) {
                    cells.add(number(output));
                }
                return cells;
        }
    }

    private static float[] mean(List<Window> windows) {
        float[] means = new float[windows.get(0).outputs().length];
        for (int i = 0; i < means.length; i++) {
            int index = i;
            means[i] = (float) windows.stream()
                    .mapToDouble(window -> window.outputs()[index])
                    .average()
                    .orElseThrow();
        }
        return means;
    }

    /** The tag of each word, {@code _} for a word without a token. */
    private String tags(List<Window> windows) throws IOException {
        List<String> tags = new ArrayList<>();
        for (Window window : windows) {
            for (JsonElement word : window.places("words")) {
                if (word.isJsonNull()) {
                    tags.add("_");
                    continue;
                }
                int token = integer(word);
                if (token < 0 || token >= window.tokens()) {
                    throw window.fault("words must have integers from 0 to " + (window.tokens() - 1) + ", or null");
                }
                tags.add(names.get(argmax(window.outputs(), token * names.size())));
            }
        }
        return String.join(" ", tags);
    }

    /** An integer, or -1. */
    private static int integer(JsonElement value) {
        try {
            return value.getAsBigDecimal().intValueExact();
        } catch (RuntimeException e) {
            return -1;
        }
    }

    /** The labels whose probability reaches their threshold. */
    private String labels(float[] probabilities) {
        JsonArray given = settings.has("thresholds") ? settings.getAsJsonArray("thresholds") : new JsonArray();
        List<String> labels = new ArrayList<>();
        for (int i = 0; i < probabilities.length; i++) {
            if (probabilities[i] >= (i < given.size() ? given.get(i).getAsDouble() : 0.5)) {
                labels.add(names.get(i));
            }
        }
        return String.join(
                settings.has("label_delimiter") ? settings.get("label_delimiter").getAsString() : ",", labels);
    }

    /**
     * The best span of the windows of a context, in characters. The probability of a span is that of its first token
     * times that of its last; that of no answer is that of token 0, the lowest of the windows.
     */
    private List<String> span(List<Window> windows) throws IOException {
        int start = 0;
        int end = 0;
        double best = Double.NEGATIVE_INFINITY; // a logarithm, as the next one
        double noAnswer = Double.POSITIVE_INFINITY;
        for (Window window : windows) {
            float[] logits = window.outputs();
            int[][] offsets = offsets(window);
            double sum = logSum(logits, 0, offsets) + logSum(logits, 1, offsets);
            noAnswer = Math.min(noAnswer, (double) logits[0] + logits[1] - sum);
            for (int i = 0; i < offsets.length; i++) {
                if (offsets[i] == null) {
                    continue;
                }
                for (int j = i; j < Math.min(offsets.length, i + LONGEST_ANSWER) && offsets[j] != null; j++) {
                    double score = (double) logits[2 * i] + logits[2 * j + 1] - sum;
                    if (score > best && offsets[i][0] < offsets[j][1]) {
                        start = offsets[i][0];
                        end = offsets[j][1];
                        best = score;
                    }
                }
            }
        }
        JsonElement threshold = settings.get("no_answer_threshold");
        boolean hasThreshold = threshold != null && !threshold.isJsonNull();
        boolean answered = !hasThreshold || noAnswer - best <= threshold.getAsDouble();
        return List.of(
                answered ? "" + start : "",
                answered ? "" + end : "",
                number(Math.exp(best)),
                number(Math.exp(noAnswer)));
    }

    /** Start and end of each token in the context, null for other tokens. */
    private static int[][] offsets(Window window) throws IOException {
        JsonArray places = window.places("offsets");
        if (places.size() != window.tokens()) {
            throw window.fault(places.size() + " offsets for " + window.tokens() + " tokens");
        }
        int[][] offsets = new int[places.size()][];
        boolean found = false;
        for (int i = 0; i < offsets.length; i++) {
            JsonElement place = places.get(i);
            if (place.isJsonNull()) {
                continue;
            }
            boolean isPair = place.isJsonArray() && place.getAsJsonArray().size() == 2;
            int start = isPair ? integer(place.getAsJsonArray().get(0)) : -1;
            int end = isPair ? integer(place.getAsJsonArray().get(1)) : -1;
            if (start < 0 || end < 0) {
                throw window.fault("offsets must be pairs of integers, or null");
            }
            offsets[i] = new int[] {start, end};
            found = true;
        }
        if (!found) {
            throw window.fault("no second text: a question needs a context");
        }
        return offsets;
    }

    /** The logarithm of what the exponentials of a logit are divided by: their sum over the context and token 0. */
    private static double logSum(float[] logits, int column, int[][] offsets) {
        double largest = logits[column];
        for (int i = 0; i < offsets.length; i++) {
            largest = offsets[i] == null ? largest : Math.max(largest, logits[2 * i + column]);
        }
        double sum = 0;
        for (int i = 0; i < offsets.length; i++) {
            sum += i == 0 || offsets[i] != null ? Math.exp(logits[2 * i + column] - largest) : 0;
        }
        return largest + Math.log(sum);
    }

    /** The class of the largest of the values from an index on. */
    private int argmax(float[] values, int start) {
        int best = 0;
        for (int i = 1; i < names.size(); i++) {
            if (values[start + i] > values[start + best]) {
                best = i;
            }
        }
        return best;
    }

    private static String number(double value) {
        return String.format(Locale.ROOT, "%.9g", value);
    }
}
