(ns fine-tune
  "Fine-tunes a headless base on labelled rows of token ids, as Clojure MXNet's BERT example does."
  (:require [bundle]
            [clojure.java.io :as io]
            [mxnet.module :as m]
            [mxnet.symbol :as sym]
            [predictions]))

(def batch-size 16)

(defn fine-tune-model
  "The classifier on the output of the pretrained symbol."
  [msymbol {:keys [num-classes dropout]}]
  (as-> msymbol data
    (sym/dropout {:data data :p dropout})
    (sym/fully-connected "fc-finetune" {:data data :num-hidden num-classes})
    (sym/softmax-output "softmax" {:data data})))

(defn- check-base
  "Refuses an unsuitable base: one with a head, or with the output sequence, which would be flattened."
  [signature prefix]
  (when-not (and (= "encoder" (signature "kind"))
                 (= 2 (count (get-in signature ["outputs" 0 "shape"]))))
    (bundle/fail prefix ": not a headless encoder that ends in one vector per text")))

(defn- check-label [row]
  (if (nat-int? (row "label"))
    row
    (bundle/fail "line " (:line (meta row)) ": label must be a number from 0")))

(defn batches
  "Batches of rows with their labels, padded to the same length."
  [signature rows]
  (let [token-ids (get-in signature ["inputs" 0 "name"])
        length (apply max (map #(count (% token-ids)) rows))]
    (for [part (partition-all batch-size rows)]
      (assoc (bundle/batch signature part :length length)
             "softmax_label" {:shape [(count part)] :values (float-array (map #(% "label") part))}))))

(defn- report [epoch labels outputs]
  (let [losses (map (fn [label values] (- (Math/log (nth values label)))) labels outputs)
        hits (map (fn [label values] (= (nth values label) (apply max values))) labels outputs)
        mean #(/ (reduce + %) (double (count %)))]
    (when-not (Double/isFinite (mean losses))
      (bundle/fail "epoch " epoch ": the loss is not finite; try a lower learning rate"))
    (binding [*out* *err*]
      (println (format "epoch %d  accuracy %.4f  cross entropy %.6f"
                       epoch (mean (map {true 1 false 0} hits)) (mean losses))))))

(defn fine-tune [base-prefix train out-prefix {:keys [num-epoch learning-rate]}]
  (when (.exists (io/file (str out-prefix "-manifest.json")))
    (bundle/fail out-prefix ": is a bundle, take another prefix"))
  (let [signature (doto (bundle/open base-prefix) (check-base base-prefix))
        rows (with-open [reader (io/reader train)]
               (mapv check-label (bundle/rows reader signature)))
        labels (map #(% "label") rows)
        classes (range (max 2 (inc (apply max labels))))
        base (m/load-checkpoint {:prefix (:prefix (meta signature)) :epoch 0})
        model {:symbol (fine-tune-model (m/symbol base) {:num-classes (count classes) :dropout 0.1})}
        outputs (atom nil)
        fitted (m/fit model {:train-data (batches signature rows)
                             :num-epoch num-epoch
                             :fit-params {:arg-params (m/arg-params base)
                                          :aux-params (m/aux-params base)
                                          :new-names ["fc-finetune_weight" "fc-finetune_bias"]
                                          :optimizer {:learning-rate learning-rate :epsilon 1e-9}
                                          :seed 0}
                             :epoch-end (fn [epoch now]
                                          (report epoch labels now)
                                          (reset! outputs now))})]
    (m/save-checkpoint fitted {:prefix out-prefix :epoch num-epoch})
    (predictions/print-table (assoc signature "kind" "classifier" "class_names" classes) rows @outputs)))

(defn -main [base-prefix train out-prefix num-epoch learning-rate]
  (bundle/run-program
   (fine-tune base-prefix train out-prefix
              {:num-epoch (parse-long num-epoch)
               :learning-rate (parse-double learning-rate)})))
