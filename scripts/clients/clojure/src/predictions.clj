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

(defn- fault [{:keys [number]} & words]
  (apply bundle/fail "row " number ": " words))

(defn- places
  "A list of a row of `bertsym tokenize` that has an element for each token or word; decoding needs it."
  [{:keys [row] :as window} name]
  (let [found (row name)]
    (when-not (sequential? found)
      (fault window "no " name ": write the inputs with bertsym tokenize"))
    found))

(defn- tags
  "The tag of each word of the windows, _ for a word without a token."
  [class-names windows]
  (string/join " " (for [{:keys [tokens outputs] :as window} windows
                         :let [values (vec (partition (count class-names) outputs))]
                         token (places window "words")]
                     (cond
                       (nil? token) "_"
                       (and (int? token) (< -1 token tokens)) (best-class class-names (vec (values token)))
                       :else (fault window "words must have integers from 0 to " (dec tokens) ", or null")))))

(defn- offsets
  "Start and end of each token in the context, nil for other tokens."
  [{:keys [tokens] :as window}]
  (let [found (vec (places window "offsets"))]
    (when-not (= tokens (count found))
      (fault window (count found) " offsets for " tokens " tokens"))
    (when-not (every? #(or (nil? %) (and (sequential? %) (= 2 (count %)) (every? nat-int? %))) found)
      (fault window "offsets must be pairs of integers, or null"))
    (when (every? nil? found)
      (fault window "no second text: a question needs a context"))
    found))

(defn- log-probabilities
  "Of the logits of the context and of token 0."
  [logits offsets]
  (let [known (keep-indexed #(when (or (zero? %1) (offsets %1)) %2) logits)
        largest (apply max known)
        sum (reduce + (map #(Math/exp (- % largest)) known))]
    (mapv #(- % largest (Math/log sum)) logits)))

(defn- window-spans
  "The logarithm of the probability of no answer, and [start end logarithm] of each span of a window in characters."
  [{:keys [tokens outputs] :as window}]
  (let [offsets (offsets window)
        [starts ends] (map #(log-probabilities (take tokens (take-nth 2 (drop % outputs))) offsets) [0 1])]
    [(+ (starts 0) (ends 0))
     (for [first (range tokens)
           :when (offsets first)
           last (take-while offsets (range first (min tokens (+ first longest-answer))))
           :let [[[start] [_ end]] (map offsets [first last])]
           :when (< start end)]
       [start end (+ (starts first) (ends last))])]))

(defn- span
  "The best span of the windows of a context, in characters. The probability of a span is that of its first token times
  that of its last; that of no answer is that of token 0, the lowest of the windows."
  [{:strs [no_answer_threshold]} windows]
  (let [found (mapv window-spans windows)
        no-answer (apply min (map first found))
        [start end best] (reduce #(if (> (peek %2) (peek %1)) %2 %1) (mapcat second found))
        place (if (and no_answer_threshold (> (- no-answer best) no_answer_threshold)) ["" ""] [start end])]
    (concat place (map #(number (Math/exp %)) [best no-answer]))))

(defn- mean [windows]
  (apply mapv (fn [& values] (float (/ (reduce + (map double values)) (count values)))) (map :outputs windows)))

(defn- layout
  "The header, the expected number of outputs, and the function from the windows of a text to its cells; without a task
  and classes the cells are the numbers, and there is no header."
  [{:strs [task kind task_settings] class-names "class_names"}]
  (case task
    "tagging" {:header ["tags"]
               :expected (count class-names)
               :cells #(vector (tags class-names %))}
    "qa" {:header ["start" "end" "score" "no_answer"]
          :expected 2
          :cells #(span task_settings %)}
    "regression" {:header ["value"]
                  :expected 1
                  :cells (fn [windows]
                           (let [[value] (mean windows)]
                             [(number (if (get task_settings "sigmoid") (/ 1 (inc (Math/exp (- value)))) value))]))}
    (if-not (= "classifier" kind)
      {:cells #(map number (mean %))}
      (let [[title choose] (if (= "multilabel" task)
                             ["labels" #(labels class-names task_settings %)]
                             ["label" #(best-class class-names %)])]
        {:header (cons title (map #(str "p(" % ")") class-names))
         :expected (count class-names)
         :cells #(let [outputs (mean %)]
                   (cons (choose outputs) (map number outputs)))}))))

(defn- tokens
  "The number of tokens of a row that are not padding."
  [{:strs [inputs]} row]
  (if-let [valid-length (first (filter #(= 1 (count (% "shape"))) inputs))]
    (row (valid-length "name"))
    (count (row ((first inputs) "name")))))

(defn- output-size
  "The number of outputs of a text or, for tasks of tokens, of each of the tokens to which the batch was padded."
  [{:strs [task inputs]} rows outputs]
  (let [{:strs [name shape]} (first inputs)
        fixed (second shape)
        length (if (number? fixed) fixed (apply max (map #(count (% name)) rows)))]
    (cond-> (count (first outputs))
      (#{"tagging" "qa"} task) (quot length))))

(defn print-table
  "Prints a header, and a line for each text; the windows of a long text are rows with the same number as example."
  [signature rows outputs]
  (let [{:keys [header expected cells]} (layout signature)
        size (output-size signature rows outputs)]
    (when (and expected (not= expected size))
      (bundle/fail "the symbol has " size " outputs, but the signature describes " expected))
    (let [windows (map (fn [number row values]
                         {:number number :row row :tokens (tokens signature row) :outputs values})
                       (rest (range)) rows outputs)
          texts (partition-by (fn [{:keys [row number]}] (get row "example" [number])) windows)
          lines (mapv cells texts)
          truncated (count (filter #(get-in (first %) [:row "truncated"]) texts))]
      (doseq [line (if header (cons header lines) lines)]
        (println (string/join "\t" line)))
      (when (pos? truncated)
        (binding [*out* *err*]
          (println (str "warning: " truncated " of " (count texts) " texts were truncated")))))))
