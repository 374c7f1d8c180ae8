(ns predict
  "Predictions of a bundle for rows of token ids."
  (:require [bundle]
            [clojure.java.io :as io]
            [mxnet.module :as m]
            [predictions]))

(defn predict [prefix reader]
  (let [signature (bundle/open prefix)
        rows (bundle/rows reader signature)
        batch (bundle/batch signature rows)
        model (m/load-checkpoint {:prefix (:prefix (meta signature)) :epoch 0})
        executor (m/bind model (update-vals batch :shape))]
    (predictions/print-table signature rows (m/forward executor batch))))

(defn -main [prefix & [inputs]]
  (bundle/run-program
   (if inputs
     (with-open [reader (io/reader inputs)]
       (predict prefix reader))
     (predict prefix (io/reader *in*)))))
