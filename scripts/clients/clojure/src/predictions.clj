(ns predictions
  "Predictions from the outputs of a bundle's symbol, by the task of its signature."
  (:require [bundle]
            [clojure.string :as string]))

(def ^:private longest-answer "In tokens." 30)

(defn- number [value]
  (String/format java.util.Locale/ROOT "%.9g" (to-array [(double value)])))

(defn- best-class [class-names values]
  (nth class-names (.indexOf ^java.util.List values (apply max values))))

(defn- labels
  "The labels whose probability reaches their threshold."
  [class-names {:strs [thresholds label_delimiter]} values]
  (string/join (or label_delimiter ",")
               (for [[label value threshold] (map vector class-names values (concat thresholds (repeat 0.5)))
                     :when (>= value threshold)]
                 label)))

(defn- span
  "The best span of the second text, whose tokens follow the first separators of the row. A score is the logit of the
  first token plus that of the last; the score of no answer is that of token 0."
  [separator {:strs [no_answer_threshold]} ids logits]
  (let [separator? #(= separator (nth ids %))
        [question text] (split-with (complement separator?) (range (count ids)))
        context (->> text (drop-while separator?) reverse (drop-while separator?) reverse vec)
        score (fn [first last] (+ (double (nth logits (* 2 first))) (double (nth logits (inc (* 2 last))))))
        spans (for [first context
                    last (range first (min (inc (peek context)) (+ first longest-answer)))]
                [first last (score first last)])
        _ (when (empty? spans)
            (bundle/fail "no second text: a question needs a context"))
        [first last best] (reduce #(if (> (peek %2) (peek %1)) %2 %1) spans)
        no-answer (score 0 0)
        place (if (and no_answer_threshold (> (- no-answer best) no_answer_threshold)) ["" ""] [first last])]
    (concat place (map number [best no-answer]))))

(defn- layout
  "The header, the expected number of outputs, and the function from the token ids and the outputs of a row to its
  cells; without a task and classes the cells are the numbers, and there is no header."
  [{:strs [task kind task_settings special_ids] class-names "class_names"}]
  (case task
    "tagging" {:header ["tags"]
               :expected (count class-names)
               :cells (fn [ids outputs]
                        [(string/join " " (map #(best-class class-names (vec %))
                                               (take (count ids) (partition (count class-names) outputs))))])}
    "qa" {:header ["start" "end" "score" "no_answer"]
          :expected 2
          :cells #(span (special_ids "sep") task_settings %1 %2)}
    "regression" {:header ["value"]
                  :expected 1
                  :cells (fn [_ [value]]
                           [(number (if (get task_settings "sigmoid") (/ 1 (inc (Math/exp (- value)))) value))])}
    (if-not (= "classifier" kind)
      {:cells (fn [_ outputs] (map number outputs))}
      (let [[title choose] (if (= "multilabel" task)
                             ["labels" #(labels class-names task_settings %)]
                             ["label" #(best-class class-names %)])]
        {:header (cons title (map #(str "p(" % ")") class-names))
         :expected (count class-names)
         :cells (fn [_ outputs] (cons (choose outputs) (map number outputs)))}))))

(defn- tokens
  "The token ids of a row that are not padding."
  [{:strs [inputs]} row]
  (let [ids (row ((first inputs) "name"))
        valid-length (first (filter #(= 1 (count (% "shape"))) inputs))]
    (if valid-length (take (row (valid-length "name")) ids) ids)))

(defn- output-size
  "The number of outputs of a text or, for tasks of tokens, of each of the tokens to which the batch was padded."
  [{:strs [task inputs]} rows outputs]
  (let [{:strs [name shape]} (first inputs)
        fixed (second shape)
        length (if (number? fixed) fixed (apply max (map #(count (% name)) rows)))]
    (cond-> (count (first outputs))
      (#{"tagging" "qa"} task) (quot length))))

(defn print-table
  "Prints a header, and a line for each row and its outputs."
  [signature rows outputs]
  (let [{:keys [header expected cells]} (layout signature)
        size (output-size signature rows outputs)]
    (when (and expected (not= expected size))
      (bundle/fail "the symbol has " size " outputs, but the signature describes " expected))
    (let [lines (mapv (fn [number row values]
                        (try (cells (vec (tokens signature row)) values)
                             (catch clojure.lang.ExceptionInfo error
                               (bundle/fail "row " number ": " (ex-message error)))))
                      (rest (range)) rows outputs)]
      (doseq [line (if header (cons header lines) lines)]
        (println (string/join "\t" line))))))
