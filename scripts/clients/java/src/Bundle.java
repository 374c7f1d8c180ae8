import com.google.gson.Gson;
import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParseException;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;

/** A bundle with its signature; the files are checked against the manifest. */
record Bundle(String prefix, JsonObject files, JsonObject signature, List<Input> inputs, int maxLength) {

    private static final List<String> TASKS =
            List.of("classification", "multilabel", "regression", "tagging", "qa");

    /**
     * An input of the symbol, whose lists are filled up with {@code padding}: {@code length} is null if it is free, and 0
     * for an input with one number per row.
     */
    record Input(String name, Integer length, int padding) {
        boolean isSequence() {
            return length == null || length > 0;
        }
    }

    /** The elements of an input for all rows, padded. */
    record Batch(String name, int[] shape, float[] values) {}

    /** Reads a file whose size and SHA-256 must be those of the manifest. */
    byte[] read(String part) throws IOException {
        return read(prefix, part, files);
    }

    /**
     * Writes the checked symbol and parameters to a new folder, for a library that loads files by their paths: another
     * process may replace those of the bundle at any time. The folder is deleted when the program ends.
     */
    Path checkedCopy(String name) throws IOException {
        Path folder = Files.createTempDirectory("bertsym");
        folder.toFile().deleteOnExit();
        for (String part : List.of("symbol.json", "0000.params")) {
            Path copy = file(folder.resolve(name).toString(), part);
            copy.toFile().deleteOnExit();
            Files.write(copy, read(part));
        }
        return folder;
    }

    /** Reads the manifest and the signature. */
    static Bundle open(String prefix) throws IOException {
        JsonObject manifest = parse(Files.readAllBytes(existing(file(prefix, "manifest.json"))));
        JsonElement version = manifest.get("format_version");
        if (version == null || version.getAsInt() != 2) {
            throw new IOException(prefix + ": bundle format " + version + ", this program reads format 2");
        }
        JsonObject files = manifest.getAsJsonObject("files");
        JsonObject signature = parse(read(prefix, "signature.json", files));
        String kind = signature.get("kind").getAsString();
        JsonElement trained = signature.get("trained");
        if (!kind.equals("encoder") && !trained.isJsonNull() && !trained.getAsBoolean()) {
            throw new IOException(prefix + ": untrained head: train it first, for example with bertsym finetune");
        }
        JsonElement task = signature.get("task");
        if (task != null && !task.isJsonNull() && !TASKS.contains(task.getAsString())) {
            String name = task.getAsString();
            throw new IOException(prefix + ": task " + name + ": not one of " + String.join(", ", TASKS));
        }
        List<Input> inputs = new ArrayList<>();
        for (JsonElement element : signature.getAsJsonArray("inputs")) {
            JsonObject input = element.getAsJsonObject();
            JsonArray shape = input.getAsJsonArray("shape");
            boolean fixed = shape.size() == 2 && shape.get(1).getAsJsonPrimitive().isNumber();
            Integer length = shape.size() == 1 ? Integer.valueOf(0) : fixed ? shape.get(1).getAsInt() : null;
            // The first input has the token ids. A symbol that is not a BERT has no pad_id.
            boolean hasPadding = inputs.isEmpty() && signature.has("pad_id");
            int padding = hasPadding ? signature.get("pad_id").getAsInt() : 0;
            inputs.add(new Input(input.get("name").getAsString(), length, padding));
        }
        int maxLength = signature.has("max_length") ? signature.get("max_length").getAsInt() : Integer.MAX_VALUE;
        return new Bundle(prefix, files, signature, inputs, maxLength);
    }

    /** Opens the second argument, or else standard input. */
    static BufferedReader lines(String[] arguments) throws IOException {
        return arguments.length > 1
                ? Files.newBufferedReader(existing(Path.of(arguments[1])))
                : new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    }

    /** A row of {@code bertsym tokenize}: the numbers of each input, and the whole object. */
    record Row(int[][] numbers, JsonObject object) {}

    /** Reads and checks the rows of JSON Lines. */
    List<Row> rows(BufferedReader lines) throws IOException {
        List<Row> rows = new ArrayList<>();
        int number = 0;
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            number++;
            if (!line.isBlank()) {
                try {
                    rows.add(row(line));
                } catch (IOException e) {
                    throw new IOException("line " + number + ": " + e.getMessage());
                }
            }
        }
        if (rows.isEmpty()) {
            throw new IOException("no rows");
        }
        return rows;
    }

    /** Returns the rows as one batch, with an array per input. */
    List<Batch> batches(List<Row> rows) {
        List<Batch> batches = new ArrayList<>();
        for (int i = 0; i < inputs.size(); i++) {
            batches.add(batch(i, rows));
        }
        return batches;
    }

    private Row row(String line) throws IOException {
        JsonObject object;
        try {
            object = new Gson().fromJson(line, JsonObject.class);
        } catch (JsonParseException e) {
            object = null;
        }
        if (object == null) {
            throw new IOException("not a JSON object: the rows are the output of bertsym tokenize");
        }
        int[][] row = new int[inputs.size()][];
        int length = -1;
        for (int i = 0; i < row.length; i++) {
            row[i] = numbers(object, inputs.get(i));
            if (inputs.get(i).isSequence()) {
                if (length >= 0 && row[i].length != length) {
                    throw new IOException("the lists differ in length");
                }
                length = row[i].length;
            }
        }
        if (length > maxLength) {
            throw new IOException(length + " tokens, but the model takes no more than " + maxLength);
        }
        for (int i = 0; i < row.length; i++) {
            // Otherwise MXNet reads out of bounds.
            if (!inputs.get(i).isSequence() && (row[i][0] < 1 || row[i][0] > length)) {
                throw new IOException(inputs.get(i).name() + " is " + row[i][0] + ", not from 1 to " + length);
            }
        }
        return new Row(row, object);
    }

    private static int[] numbers(JsonObject object, Input input) throws IOException {
        JsonElement value = object.get(input.name());
        try {
            if (!input.isSequence()) {
                return new int[] {value.getAsBigDecimal().intValueExact()};
            }
            int[] numbers = new int[value.getAsJsonArray().size()];
            for (int i = 0; i < numbers.length; i++) {
                numbers[i] = value.getAsJsonArray().get(i).getAsBigDecimal().intValueExact();
                if (numbers[i] < 0) {
                    throw new IOException(input.name() + " has a number below 0");
                }
            }
            return numbers;
        } catch (RuntimeException e) {
            String kind = input.isSequence() ? "a list of integers" : "an integer";
            throw new IOException(input.name() + " must be " + kind);
        }
    }

    private Batch batch(int index, List<Row> rows) {
        Input input = inputs.get(index);
        int longest = rows.stream().mapToInt(row -> row.numbers()[index].length).max().orElse(0);
        int width = input.length() == null || !input.isSequence() ? longest : input.length();
        float[] values = new float[rows.size() * width];
        for (int i = 0; i < rows.size(); i++) {
            int[] row = rows.get(i).numbers()[index];
            for (int j = 0; j < width; j++) {
                values[i * width + j] = j < row.length ? row[j] : input.padding();
            }
        }
        int[] shape = input.isSequence() ? new int[] {rows.size(), width} : new int[] {rows.size()};
        return new Batch(input.name(), shape, values);
    }

    private static Path file(String prefix, String part) {
        return Path.of(prefix + "-" + part);
    }

    private static JsonObject parse(byte[] content) {
        return new Gson().fromJson(new String(content, StandardCharsets.UTF_8), JsonObject.class);
    }

    private static Path existing(Path path) throws IOException {
        if (!Files.isRegularFile(path)) {
            throw new NoSuchFileException(path.toString(), null, "no such file");
        }
        return path;
    }

    private static byte[] read(String prefix, String part, JsonObject files) throws IOException {
        Path path = existing(file(prefix, part));
        byte[] content = Files.readAllBytes(path);
        JsonObject expected = files.getAsJsonObject(part);
        boolean same = content.length == expected.get("size").getAsLong()
                && sha256(content).equals(expected.get("sha256").getAsString());
        if (!same) {
            throw new IOException(path + ": differs from the manifest");
        }
        return content;
    }

    private static String sha256(byte[] content) {
        try {
            return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(content));
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException(e);
        }
    }
}
