(ns mxnet.symbol
  "Symbols, by the names of Clojure MXNet's org.apache.clojure-mxnet.symbol."
  (:require [clojure.string :as string]
            [mxnet.library :as library])
  (:import (com.sun.jna.ptr IntByReference PointerByReference)))

(defn load-symbol [path]
  (library/handle "MXSymbolCreateFromFile" path))

(defn save-symbol [symbol path]
  (library/call "MXSymbolSaveToFile" symbol path))

(defn list-arguments [symbol]
  (library/listed-strings "MXSymbolListArguments" symbol))

(defn list-auxiliary-states [symbol]
  (library/listed-strings "MXSymbolListAuxiliaryStates" symbol))

(def ^:private counts (atom {}))

(defn- next-name
  "dropout0, dropout1, ... as MXNet's bindings name what has no name."
  [operator]
  (let [hint (string/lower-case operator)]
    (str hint (dec (get (swap! counts update hint (fnil inc 0)) hint)))))

(defn- node [operator]
  (fn
    ([options]
     ((node operator) (next-name operator) options))
    ([name {:keys [data] :as options}]
     (let [options (dissoc options :data)
           [names texts] (library/attributes options)
           symbol (library/handle "MXSymbolCreateAtomicSymbol" (library/operator operator)
                                  (int (count options)) names texts)]
       (library/call "MXSymbolCompose" symbol name (int 1) (library/strings ["data"]) (library/pointers [data]))
       symbol))))

(def dropout "(dropout {:data symbol :p 0.1})" (node "Dropout"))
(def fully-connected "(fully-connected \"name\" {:data symbol :num-hidden 2})" (node "FullyConnected"))
(def softmax-output "(softmax-output \"name\" {:data symbol})" (node "SoftmaxOutput"))

(defn infer-shapes
  "{argument shape} of all arguments, from the shapes of the inputs."
  [symbol input-shapes]
  (let [references (repeatedly 3 (fn [] [(IntByReference.) (PointerByReference.) (PointerByReference.)]))
        complete (IntByReference.)
        [size dimensions sizes] (first references)]
    (apply library/call "MXSymbolInferShape" symbol (int (count input-shapes)) (library/strings (keys input-shapes))
           (int-array (reductions + 0 (map count (vals input-shapes)))) (int-array (apply concat (vals input-shapes)))
           (concat (flatten references) [complete]))
    (when (zero? (.getValue complete))
      (throw (ex-info "the shapes of the inputs do not determine all shapes" {})))
    (zipmap (list-arguments symbol)
            (map (fn [pointer n] (vec (.getIntArray pointer 0 n)))
                 (.getPointerArray (.getValue sizes) 0 (.getValue size))
                 (.getIntArray (.getValue dimensions) 0 (.getValue size))))))
