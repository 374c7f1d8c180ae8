import com.sun.jna.Library;
import com.sun.jna.Native;
import com.sun.jna.Pointer;
import com.sun.jna.ptr.IntByReference;
import com.sun.jna.ptr.PointerByReference;
import java.io.BufferedReader;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.List;

/** Predictions of a bundle, computed with MXNet's C predict API (include/mxnet/c_predict_api.h). */
final class Predict {

    /** The functions of libmxnet.so that are used; each returns 0 on success. */
    interface MXNet extends Library {
        int CPU = 1;

        int MXListAllOpNames(IntByReference size, PointerByReference names);

        int MXPredCreate(
                String symbol,
                byte[] parameters,
                int parametersSize,
                int deviceType,
                int deviceId,
                int inputs,
                String[] names,
                int[] shapeStarts,
                int[] shapes,
                PointerByReference predictor);

        int MXPredSetInput(Pointer predictor, String name, float[] values, int size);

        int MXPredForward(Pointer predictor);

        int MXPredGetOutputShape(Pointer predictor, int index, PointerByReference sizes, IntByReference dimensions);

        int MXPredGetOutput(Pointer predictor, int index, float[] values, int size);

        int MXPredFree(Pointer predictor);

        int MXNDArrayWaitAll();

        String MXGetLastError();
    }

    private final MXNet mxnet = Native.load(System.getenv("LIBMXNET"), MXNet.class);

    /** The first output, row after row. */
    private float[] run(Bundle bundle, List<Bundle.Batch> inputs) throws IOException {
        String[] names = inputs.stream().map(Bundle.Batch::name).toArray(String[]::new);
        int[] starts = new int[names.length + 1];
        for (int i = 0; i < names.length; i++) {
            starts[i + 1] = starts[i] + inputs.get(i).shape().length;
        }
        int[] shapes = inputs.stream().flatMapToInt(input -> Arrays.stream(input.shape())).toArray();
        byte[] parameters = bundle.read("0000.params");

        // MXNet computes and frees memory in its own threads: an exit meanwhile could abort or hang.
        Runtime.getRuntime().addShutdownHook(new Thread(mxnet::MXNDArrayWaitAll));
        // MXNet registers its older operators and their shape inference when it first lists them.
        check(mxnet.MXListAllOpNames(new IntByReference(), new PointerByReference()));
        PointerByReference created = new PointerByReference();
        check(mxnet.MXPredCreate(
                new String(bundle.read("symbol.json"), StandardCharsets.UTF_8),
                parameters,
                parameters.length,
                MXNet.CPU,
                0,
                names.length,
                names,
                starts,
                shapes,
                created));
        Pointer predictor = created.getValue();
        for (Bundle.Batch input : inputs) {
            check(mxnet.MXPredSetInput(predictor, input.name(), input.values(), input.values().length));
        }
        check(mxnet.MXPredForward(predictor));
        PointerByReference sizes = new PointerByReference();
        IntByReference dimensions = new IntByReference();
        check(mxnet.MXPredGetOutputShape(predictor, 0, sizes, dimensions));
        int size = 1;
        for (int length : sizes.getValue().getIntArray(0, dimensions.getValue())) {
            size *= length;
        }
        float[] output = new float[size];
        check(mxnet.MXPredGetOutput(predictor, 0, output, size));
        check(mxnet.MXPredFree(predictor));
        return output;
    }

    private void check(int status) throws IOException {
        if (status != 0) {
            throw new IOException("MXNet: " + mxnet.MXGetLastError().lines().findFirst().orElse("no reason given"));
        }
    }

    public static void main(String[] arguments) {
        try (BufferedReader lines = Bundle.lines(arguments)) {
            Bundle bundle = Bundle.open(arguments[0]);
            List<Bundle.Row> rows = bundle.rows(lines);
            List<Bundle.Batch> inputs = bundle.batches(rows);
            new Predictions(bundle).print(new Predict().run(bundle, inputs), inputs, rows);
        } catch (IOException | RuntimeException | UnsatisfiedLinkError e) {
            System.err.println("error: " + e.getMessage());
            System.exit(1);
        }
    }
}
