(ns mxnet.module
  "Symbols with parameters, by the names of Clojure MXNet's org.apache.clojure-mxnet.module.

  A batch is {input {:shape [2 7] :values float-array}}."
  (:refer-clojure :exclude [symbol])
  (:require [clojure.java.io :as io]
            [clojure.string :as string]
            [mxnet.library :as library]
            [mxnet.ndarray :as ndarray]
            [mxnet.symbol :as sym]))

(def ^:private cpu (int 1))
(def ^:private no-gradient 0)
(def ^:private write-gradient 1)

(def symbol :symbol)
(def arg-params :arg-params)
(def aux-params :aux-params)

(defn- checkpoint-path [prefix epoch]
  (format "%s-%04d.params" prefix epoch))

(defn- of-kind [kind arrays]
  (into {} (for [[name array] arrays :when (string/starts-with? name kind)]
             [(subs name (count kind)) array])))

(defn load-checkpoint [{:keys [prefix epoch]}]
  (let [arrays (ndarray/load-arrays (checkpoint-path prefix epoch))]
    {:symbol (sym/load-symbol (str prefix "-symbol.json"))
     :arg-params (of-kind "arg:" arrays)
     :aux-params (of-kind "aux:" arrays)}))

(defn save-checkpoint [model {:keys [prefix epoch]}]
  (io/make-parents (checkpoint-path prefix epoch))
  (sym/save-symbol (symbol model) (str prefix "-symbol.json"))
  (ndarray/save-arrays (checkpoint-path prefix epoch)
                       (into (sorted-map) (concat (update-keys (arg-params model) #(str "arg:" %))
                                                  (update-keys (aux-params model) #(str "aux:" %))))))

(defn bind
  "An executor for batches of these shapes; with gradients, but not of inputs, it can train."
  [model input-shapes & {:keys [gradients]}]
  (let [names (sym/list-arguments (symbol model))
        inputs (update-vals input-shapes ndarray/empty-array)
        arguments (merge (arg-params model) inputs)
        trained (when gradients (apply dissoc arguments (keys inputs)))
        grads (update-vals trained #(ndarray/empty-array (ndarray/shape %)))
        states (map (aux-params model) (sym/list-auxiliary-states (symbol model)))]
    (when-let [missing (seq (remove arguments names))]
      (throw (ex-info (str "no array for the arguments " (string/join ", " missing)) {})))
    {:inputs inputs
     :gradients grads
     :executor (library/handle "MXExecutorBindEX" (symbol model) cpu (int 0) (int 0) nil nil nil (int (count names))
                               (library/pointers (map arguments names)) (library/pointers (map grads names))
                               (int-array (map #(if (grads %) write-gradient no-gradient) names))
                               (int (count states)) (library/pointers states) nil)}))

(defn forward
  "Runs a batch; returns the first output as rows."
  [{:keys [executor inputs]} batch & {:keys [is-train]}]
  (doseq [[name array] inputs]
    (ndarray/copy-from! array (:values (batch name))))
  (library/call "MXExecutorForward" executor (int (if is-train 1 0)))
  (let [output (first (library/listed-handles "MXExecutorOutputs" executor))
        [_ & row-shape] (ndarray/shape output)]
    (mapv vec (partition (reduce * row-shape) (ndarray/->floats output)))))

(defn init-params
  "Copies of the parameters, and random ones for missing arguments, which must be in `new-names`."
  [model batch {:keys [arg-params new-names seed]}]
  (let [shapes (sym/infer-shapes (symbol model) (update-vals batch :shape))
        random (java.util.Random. seed)
        initial (fn [name shape]
                  (let [size (reduce * shape)]
                    (ndarray/array (if (string/ends-with? name "bias")
                                     (float-array size)
                                     (float-array (repeatedly size #(* 0.01 (dec (* 2 (.nextFloat random)))))))
                                   shape)))
        names (remove (set (keys batch)) (sym/list-arguments (symbol model)))]
    (when-let [missing (seq (remove (set (concat (keys arg-params) new-names)) names))]
      (throw (ex-info (str "the parameters lack " (string/join ", " missing)) {})))
    (into {} (for [name names]
               [name (if-let [given (arg-params name)]
                       (ndarray/array (ndarray/->floats given) (ndarray/shape given))
                       (initial name (shapes name)))]))))

(defn- adam
  "A function that makes Adam's step from the gradients of an executor."
  [params {:keys [learning-rate beta1 beta2 epsilon] :or {beta1 0.9 beta2 0.999 epsilon 1e-8}}]
  (let [zeros #(ndarray/array (float-array (reduce * (ndarray/shape %))) (ndarray/shape %))
        means (update-vals params zeros)
        variances (update-vals params zeros)
        steps (atom 0)]
    (fn [{:keys [gradients]} batch-size]
      (let [step (swap! steps inc)
            correction (/ (Math/sqrt (- 1 (Math/pow beta2 step))) (- 1 (Math/pow beta1 step)))]
        (doseq [[name weight] params]
          (ndarray/update! "adam_update" [weight (gradients name) (means name) (variances name)] weight
                           {:lr (* learning-rate correction) :beta1 beta1 :beta2 beta2 :epsilon epsilon
                            :rescale-grad (/ 1.0 batch-size)}))))))

(defn fit
  "Trains a model on batches, which hold the label too; after each epoch calls (epoch-end epoch outputs)."
  [model {:keys [train-data num-epoch fit-params epoch-end]}]
  (library/call "MXRandomSeed" (int (:seed fit-params)))
  (let [params (init-params model (first train-data) fit-params)
        fitted (assoc model :arg-params params :aux-params (:aux-params fit-params))
        executor-of (memoize (fn [shapes] (bind fitted shapes :gradients true)))
        executor #(executor-of (update-vals % :shape))
        step (adam params (:optimizer fit-params))]
    (doseq [epoch (range num-epoch)]
      (doseq [batch train-data]
        (forward (executor batch) batch :is-train true)
        (library/call "MXExecutorBackward" (:executor (executor batch)) (int 0) nil)
        (step (executor batch) (-> batch vals first :shape first)))
      (epoch-end epoch (mapcat #(forward (executor %) %) train-data)))
    fitted))
