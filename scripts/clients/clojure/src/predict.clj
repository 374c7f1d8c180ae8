(ns predict
  "Labels and probabilities of a bundle for rows of token ids."
  (:require [bundle]
            [clojure.java.io :as io]
            [mxnet.module :as m]))

(defn predict [prefix reader]
  (let [signature (bundle/open prefix)
        batch (bundle/batch signature (bundle/rows reader signature))
        model (m/load-checkpoint {:prefix (:prefix (meta signature)) :epoch 0})
        executor (m/bind model (update-vals batch :shape))]
    (bundle/print-table (when (= "classifier" (signature "kind")) (signature "class_names"))
                        (m/forward executor batch))))

(defn -main [prefix & [inputs]]
  (bundle/run-program
   (if inputs
     (with-open [reader (io/reader inputs)]
       (predict prefix reader))
     (predict prefix (io/reader *in*)))))
