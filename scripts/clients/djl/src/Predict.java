import ai.djl.MalformedModelException;
import ai.djl.Model;
import ai.djl.ndarray.NDArray;
import ai.djl.ndarray.NDList;
import ai.djl.ndarray.NDManager;
import ai.djl.ndarray.types.Shape;
import ai.djl.training.ParameterStore;
import java.io.BufferedReader;
import java.io.IOException;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;

/** Predictions of a bundle, by DJL's MXNet engine. */
final class Predict {

    /** The first output, row after row. */
    private static float[] run(Bundle bundle, List<Bundle.Batch> inputs) throws IOException, MalformedModelException {
        try (Model model = Model.newInstance("bundle", "MXNet")) {
            model.load(bundle.checkedCopy("bundle"), "bundle", Map.of("epoch", "0"));
            NDManager manager = model.getNDManager();
            NDList arrays = new NDList();
            for (Bundle.Batch input : inputs) {
                Shape shape = new Shape(IntStream.of(input.shape()).asLongStream().toArray());
                NDArray array = manager.create(input.values(), shape);
                // DJL finds the input of the symbol by its name, not by its position.
                array.setName(input.name());
                arrays.add(array);
            }
            NDList outputs = model.getBlock().forward(new ParameterStore(manager, false), arrays, false);
            return outputs.get(0).toFloatArray();
        }
    }

    public static void main(String[] arguments) {
        try (BufferedReader lines = Bundle.lines(arguments)) {
            Bundle bundle = Bundle.open(arguments[0]);
            List<Bundle.Row> rows = bundle.rows(lines);
            List<Bundle.Batch> inputs = bundle.batches(rows);
            new Predictions(bundle).print(run(bundle, inputs), inputs, rows);
        } catch (IOException | MalformedModelException | RuntimeException | ExceptionInInitializerError e) {
            Throwable cause = e;
            while (cause.getCause() != null) {
                cause = cause.getCause();
            }
            System.err.println("error: " + String.valueOf(cause.getMessage()).lines().findFirst().orElse(""));
            System.exit(1);
        }
    }
}
