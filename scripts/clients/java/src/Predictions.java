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

    private final JsonObject signature;
    private final JsonObject settings;
    private final String task; // empty without one
    private final List<String> names = new ArrayList<>(); // of the classes

    Predictions(Bundle bundle) {
        signature = bundle.signature();
        JsonElement known = signature.get("task");
        task = known == null || known.isJsonNull() ? "" : known.getAsString();
        settings = signature.has("task_settings") ? signature.getAsJsonObject("task_settings") : new JsonObject();
        // Only the columns of a classifier have names.
        if (task.equals("tagging") || signature.get("kind").getAsString().equals("classifier")) {
            signature.getAsJsonArray("class_names").forEach(name -> names.add(name.getAsString()));
        }
    }

    /** Prints a header and a line per row of the inputs; without a task and classes only the numbers. */
    void print(float[] outputs, List<Bundle.Batch> inputs) throws IOException {
        Bundle.Batch ids = inputs.get(0);
        int rows = ids.shape()[0];
        boolean perToken = task.equals("tagging") || task.equals("qa");
        int length = perToken ? ids.shape()[1] : 0;
        int columns = outputs.length / rows;
        int width = perToken ? columns / length : columns;
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
        for (int i = 0; i < rows; i++) {
            int number = i;
            // The valid length, which is the only input with one number per row.
            int valid = inputs.stream()
                    .filter(input -> input.shape().length == 1)
                    .findFirst()
                    .map(input -> (int) input.values()[number])
                    .orElse(length);
            float[] tokens = Arrays.copyOfRange(ids.values(), i * length, i * length + (perToken ? valid : 0));
            float[] row = Arrays.copyOfRange(outputs, i * columns, (i + 1) * columns);
            try {
                lines.add(String.join("\t", cells(row, tokens)));
            } catch (IOException e) {
                throw new IOException("row " + (i + 1) + ": " + e.getMessage());
            }
        }
        lines.forEach(System.out::println);
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

    private List<String> cells(float[] outputs, float[] tokens) throws IOException {
        switch (task) {
            case "tagging":
                return List.of(tags(outputs, tokens.length));
            case "qa":
                return span(outputs, tokens);
            case "regression":
                boolean sigmoid = settings.has("sigmoid") && settings.get("sigmoid").getAsBoolean();
                return List.of(number(sigmoid ? 1 / (1 + Math.exp(-outputs[0])) : outputs[0]));
            default:
                List<String> cells = new ArrayList<>();
                if (!names.isEmpty()) {
                    cells.add(task.equals("multilabel") ? labels(outputs) : names.get(argmax(outputs, 0)));
                }
                for (float value : outputs) {
                    cells.add(number(value));
                }
                return cells;
        }
    }

    /** The tag of each token that is not padding. */
    private String tags(float[] probabilities, int tokens) {
        List<String> tags = new ArrayList<>();
        for (int i = 0; i < tokens; i++) {
            tags.add(names.get(argmax(probabilities, i * names.size())));
        }
        return String.join(" ", tags);
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
     * The best span of the second text, whose tokens follow the first separators of the row. A score is the logit of the
     * first token plus that of the last; the score of no answer is that of token 0.
     */
    private List<String> span(float[] logits, float[] tokens) throws IOException {
        float separator = signature.getAsJsonObject("special_ids").get("sep").getAsFloat();
        int from = 0;
        int to = tokens.length;
        while (from < to && tokens[from] != separator) {
            from++;
        }
        while (from < to && tokens[from] == separator) {
            from++;
        }
        while (to > from && tokens[to - 1] == separator) {
            to--;
        }
        if (from == to) {
            throw new IOException("no second text: a question needs a context");
        }
        int first = 0;
        int last = 0;
        double best = Double.NEGATIVE_INFINITY;
        for (int i = from; i < to; i++) {
            for (int j = i; j < Math.min(to, i + LONGEST_ANSWER); j++) {
                double score = (double) logits[2 * i] + logits[2 * j + 1];
                if (score > best) {
                    first = i;
                    last = j;
                    best = score;
                }
            }
        }
        double noAnswer = (double) logits[0] + logits[1];
        JsonElement threshold = settings.get("no_answer_threshold");
        boolean hasThreshold = threshold != null && !threshold.isJsonNull();
        boolean answered = !hasThreshold || noAnswer - best <= threshold.getAsDouble();
        return List.of(answered ? "" + first : "", answered ? "" + last : "", number(best), number(noAnswer));
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
