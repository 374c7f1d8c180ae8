(ns mxnet.ndarray
  "float32 arrays on the CPU. They are not freed: a program holds its parameters until it ends."
  (:require [mxnet.library :as library])
  (:import (com.sun.jna Memory Native)
           (com.sun.jna.ptr IntByReference PointerByReference)
           (java.lang.ref Reference)))

(def ^:private cpu (int 1))
(def ^:private float32 (int 0))

(defn empty-array [shape]
  (library/handle "MXNDArrayCreateEx" (int-array shape) (int (count shape)) cpu (int 0) (int 0) float32))

(defn copy-from!
  "Writes floats to all elements of the array."
  [array floats]
  (library/call "MXNDArraySyncCopyFromCPU" array floats (long (alength ^floats floats))))

(defn array [floats shape]
  (doto (empty-array shape) (copy-from! floats)))

(defn shape [array]
  (let [dimensions (IntByReference.)
        sizes (PointerByReference.)]
    (library/call "MXNDArrayGetShape" array dimensions sizes)
    (vec (.getIntArray (.getValue sizes) 0 (.getValue dimensions)))))

(defn ->floats [array]
  (let [floats (float-array (reduce * (shape array)))]
    (library/call "MXNDArraySyncCopyToCPU" array floats (long (alength floats)))
    floats))

(defn load-arrays
  "The arrays of a .params file: {\"arg:NAME\" array}."
  [path]
  (let [size (IntByReference.)
        arrays (PointerByReference.)
        names (library/listed-strings "MXNDArrayLoad" path size arrays)]
    (zipmap names (.getPointerArray (.getValue arrays) 0 (.getValue size)))))

(defn save-arrays [path arrays]
  (library/call "MXNDArraySave" path (int (count arrays))
                (library/pointers (vals arrays)) (library/strings (keys arrays))))

(defn update!
  "Runs an operator on arrays and writes its result to one of them: (update! \"sgd_update\" [w g] w {:lr 0.1})."
  [operator inputs output options]
  (let [[names texts] (library/attributes options)
        outputs (doto (Memory. Native/POINTER_SIZE) (.setPointer 0 output))]
    (library/call "MXImperativeInvoke" (library/operator operator) (int (count inputs)) (library/pointers inputs)
                  (IntByReference. 1) (PointerByReference. outputs) (int (count options)) names texts)
    ;; The reference has only the address: without this, the memory could be freed during the call.
    (Reference/reachabilityFence outputs)))
